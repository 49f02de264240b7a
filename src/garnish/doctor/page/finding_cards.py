"""Findings as the page shows them: grouped by level and check, the worst few files as pictures, all files as a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from garnish.data.folder import FolderDataset
from garnish.doctor.fault import LEVELS, Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.page.cells import cells_of
from garnish.doctor.page.page_room import PageRoom
from garnish.doctor.page.picture_sheet import PictureRow

#: Files of a finding that are shown as pictures, labels beside each, and longer side of a cell in pixels.
_WORST, _LABELS, _SIDE = 4, 3, 200
#: Findings of a group that are shown, and files of a finding that are listed.
_MOST_CARDS, _MOST_FILES = 50, 500
#: Findings of a group that are shown with pictures, and rows of pictures in all: each costs the reading of one.
_PICTURED, _MOST_ROWS = 8, 160

#: A split and the index of a picture there.
_Place = tuple[FolderDataset, int]


@final
@dataclass(frozen=True)
class Card:
    """One finding.

    Attributes:
        fault: it.
        rows: the worst files as pictures.
        files: paths of all files, as far as there is room.
        more: number of the others.
    """

    fault: Fault
    rows: Sequence[PictureRow]
    files: Sequence[str]
    more: int


@final
@dataclass(frozen=True)
class CardGroup:
    """The findings of one level of one check.

    Attributes:
        level: of all of them.
        check: name of the check.
        finds: what it finds, a line; may be empty.
        count: number of findings.
        cards: those that are shown.
    """

    level: Level
    check: str
    finds: str
    count: int
    cards: Sequence[Card]


def grouped(faults: Sequence[Fault]) -> dict[tuple[Level, str], list[Fault]]:
    """(level, check) → its findings in their order; errors first, then by first appearance."""
    found: dict[tuple[Level, str], list[Fault]] = {}
    for level in LEVELS:
        for fault in faults:
            if fault.level == level:
                found.setdefault((level, fault.check), []).append(fault)
    return found


def card_groups(
    faults: Sequence[Fault],
    sets: Sequence[FolderDataset],
    finds: Mapping[str, str],
    room: PageRoom,
    list_room: PageRoom,
) -> list[CardGroup]:
    """The findings of a page.

    Args:
        faults: all of them.
        sets: the opened splits, whose pictures are shown.
        finds: check → what it finds, a line.
        room: what pictures may take.
        list_room: what messages and lists of files may take.
    """
    groups = {key: several[:_MOST_CARDS] for key, several in grouped(faults).items()}
    places = _places([fault for several in groups.values() for fault in several], sets)
    made, rows = [], PageRoom(_MOST_ROWS)
    for (level, check), several in groups.items():
        cards = [
            Card(fault, _rows(fault, places, room, rows) if number < _PICTURED else (), *_listed(fault, list_room))
            for number, fault in enumerate(several)
            if list_room.take(len(fault.message) + len(fault.remedy))
        ]
        count = sum(fault.level == level and fault.check == check for fault in faults)
        made.append(CardGroup(level, check, finds.get(check, ""), count, cards))
    return made


def _rows(fault: Fault, places: Mapping[str, list[_Place]], room: PageRoom, rows: PageRoom) -> list[PictureRow]:
    made = []
    for dataset, index in _shown(fault, places):
        if room.refused or not rows.take(1):
            break
        seen = Looked(dataset, index)
        tasks = [*(fault.tasks or seen.files)][:_LABELS]
        made.append(PictureRow(seen.name, seen.split, cells_of(seen, tasks, _SIDE, room)))
    return made


def _listed(fault: Fault, room: PageRoom) -> tuple[list[str], int]:
    """The files that are listed, and how many are not."""
    files = []
    for file in fault.files[:_MOST_FILES]:
        if not room.take(len(file.encode(errors="replace")) + 20):
            break
        files.append(file)
    return files, len(fault.files) - len(files)


def _places(faults: Sequence[Fault], sets: Sequence[FolderDataset]) -> dict[str, list[_Place]]:
    """Name of each picture that may be shown → where it is; several splits may have one of that name."""
    wanted = {name for fault in faults for name in fault.names[:_WORST]}
    found: dict[str, list[_Place]] = {}
    for dataset in sets if wanted else ():
        for index in range(len(dataset)):
            if (name := dataset.picture_name(index)) in wanted:
                found.setdefault(name, []).append((dataset, index))
    return found


def _shown(fault: Fault, places: Mapping[str, list[_Place]]) -> Iterator[_Place]:
    """The pictures of the worst files, each once."""
    told: set[tuple[str, int]] = set()
    for number, name in enumerate(fault.names[:_WORST]):
        found = [place for place in places.get(name, ()) if fault.split in (None, place[0].split)]
        file = fault.files[number] if number < len(fault.files) else ""
        exact = [
            (dataset, index)
            for dataset, index in found
            if file in (str(dataset.picture_file(index)), *map(str, dataset.label_files(index).values()))
        ]
        for dataset, index in (exact or found)[:1]:
            if (dataset.split, index) not in told:
                told.add((dataset.split, index))
                yield dataset, index
