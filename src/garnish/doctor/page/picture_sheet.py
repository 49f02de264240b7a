"""The sheet of the page: some pictures of each split, evenly spaced, with all their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from garnish.data.folder import FolderDataset
from garnish.data.subset import chosen
from garnish.doctor.looked import Looked
from garnish.doctor.page.cells import ShownCell, cells_of
from garnish.doctor.page.page_room import PageRoom

#: Pictures of the first split and of each other one; splits that are shown; longer side of a cell in pixels.
_FIRST, _OTHERS, _MOST_SPLITS, _SIDE = 4, 2, 4, 280


@final
@dataclass(frozen=True)
class PictureRow:
    """One picture with its labels.

    Attributes:
        name: of the picture.
        split: of it.
        cells: the picture, then a label a task.
    """

    name: str
    split: str
    cells: Sequence[ShownCell]


def picture_sheet(sets: Sequence[FolderDataset], room: PageRoom) -> list[PictureRow]:
    """The rows of the sheet, of the splits in their order.

    Args:
        sets: the opened splits.
        room: what their pictures may take.
    """
    rows = []
    for number, dataset in enumerate(sets[:_MOST_SPLITS]):
        for index in chosen(len(dataset), _OTHERS if number else _FIRST):
            seen = Looked(dataset, index)
            rows.append(PictureRow(seen.name, seen.split, cells_of(seen, dataset.tasks, _SIDE, room)))
    return rows
