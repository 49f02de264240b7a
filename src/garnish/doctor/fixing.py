"""``fix``: a copy of a data set in which the doctor's safe mends are done; the set itself is not touched.

Files are copied and not linked: a program that writes into a linked copy would change the original.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from garnish.checking.plain_data import Json
from garnish.data.description import Description
from garnish.data.folder import FolderDataset
from garnish.data.patterns import filled, is_list
from garnish.doctor.diagnosis import Diagnosis
from garnish.doctor.examine import chosen_checks
from garnish.doctor.fault import Fault
from garnish.doctor.looked import Looked
from garnish.doctor.opened_splits import open_splits
from garnish.errors import DataError, OptionError, one_line, plural
from garnish.files.atomic import write_file, writing
from garnish.files.path_text import given_path
from garnish.files.strict_yaml import read_yaml, write_yaml

#: Files beside pictures and labels that belong to a set: lists, tables, names of classes.
_TEXTS, _MOST_TEXT = (".txt", ".csv", ".json", ".jsonl", ".yaml", ".yml"), 256 * 2**20


@final
@dataclass(frozen=True, kw_only=True)
class Mended:
    """What :func:`fix` did.

    Attributes:
        folder: the copy.
        description: its data.yaml; None: the set has none, and is read by its folders' names as before.
        copied: files in the copy.
        done: what was mended, a line each.
        left: what was not mended and why, a line each.
    """

    folder: str
    description: str | None
    copied: int
    done: tuple[str, ...]
    left: tuple[str, ...]


def fix(
    source: str | Path | Mapping[str, Json],
    diagnosis: Diagnosis,
    out: str | Path,
    *,
    root: str | Path | None = None,
    known: Description | None = None,
) -> Mended:
    """Copy a set to a new folder and mend what its diagnosis says can be mended.

    Copied are the pictures of all splits with their labels, and lists and tables beside them. A description is written
    anew as ``data.yaml`` in the copy, without its comments, with what the faults ask to be written there.

    Args:
        source: as :func:`garnish.doctor.examine.examine` was given it.
        diagnosis: what that found.
        out: a folder that does not exist yet; it appears when all is done.
        root: as there.
        known: the description of ``source`` where it was read already, which spares guessing a folder once more.

    Raises:
        DataError: the folder exists, lies within the set, or cannot be written; no split can be opened.
    """
    opened = open_splits(known or source, list(diagnosis.splits), root)
    description, folder = opened.sets[0].description, given_path(out, "fix", DataError)
    if folder.exists():
        raise DataError(f"{folder}: exists already; name a folder that does not")
    if folder.resolve().is_relative_to(description.root.resolve()):
        raise DataError(f"{folder}: lies within the set; name a folder outside of {description.root}")
    growing = folder.with_name(f".{folder.name}.growing")
    with writing(folder, "; nothing was left there", DataError):
        shutil.rmtree(growing, ignore_errors=True)  # what a killed call left
        try:
            copied = _copy(source, opened.sets, description, growing)
            done, left = _mend(opened.sets, diagnosis, description.root, growing)
            written = _describe(source, description, diagnosis, growing, done, left)
            growing.rename(folder)
        except BaseException:
            shutil.rmtree(growing, ignore_errors=True)
            raise
    told = str(folder / "data.yaml") if written else None
    return Mended(folder=str(folder), description=told, copied=copied, done=tuple(done), left=tuple(left))


def _files(
    source: str | Path | Mapping[str, Json], sets: list[FolderDataset], description: Description
) -> Iterator[Path]:
    """All files of a set, each once or more; also pictures that ``every`` skips, for the copy skips them again."""
    whole = replace(description, every={})
    for part in sets:
        for name, path in whole.pictures(part.split):
            yield from whole.picture_files(part.split, name, path)
            for task in part.tasks:
                if (file := whole.label_file(task, part.split, name, path)) is not None:
                    yield from whole.tasks[task].labels.files(file, whole.word(task, name, path))
    lists = [value for value in description.splits.values() if isinstance(value, str)]
    if (given := _given(source)) is not None and isinstance(given.get("splits"), str):
        lists.append(given["splits"])
    if description.table is not None:
        lists += [filled(description.table.file, split=_folder(description, part.split)) for part in sets]
    for value in lists:
        if (listed := description.root / value).is_file():
            yield listed
    for path in description.root.iterdir():
        if path.suffix.lower() in _TEXTS and path.is_file() and path.stat().st_size <= _MOST_TEXT:
            yield path


def _folder(description: Description, split: str) -> str:
    """What ``{split}`` of a table's name stands for."""
    value = description.splits.get(description.taken_from(split))
    return value if isinstance(value, str) and not is_list(value) else description.taken_from(split)


def _copy(
    source: str | Path | Mapping[str, Json], sets: list[FolderDataset], description: Description, to: Path
) -> int:
    files = dict.fromkeys(_files(source, sets, description))
    for file in files:
        if not file.is_relative_to(description.root):
            raise DataError(f"{file}: lies outside of the set's folder {description.root}; move it there, then fix")
        place = to / file.relative_to(description.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return len(files)


def _mend(sets: list[FolderDataset], diagnosis: Diagnosis, root: Path, to: Path) -> tuple[list[str], list[str]]:
    """Mend files of the copy; several mends of one file follow each other."""
    at: dict[str, tuple[FolderDataset, int]] = {}
    for part in sets:
        for index in range(len(part)):
            at[str(part.picture_file(index))] = (part, index)
            at.update({str(file): (part, index) for file in part.label_files(index).values()})
    done: list[str] = []
    left: list[str] = []
    checks = chosen_checks()
    for fault in diagnosis.faults:
        check = checks.get(fault.check)
        if fault.fix is None or check is None:
            continue
        mended: list[str] = []
        for file in fault.files:
            if file not in at:
                left.append(f"{file}: is no file of the set any more")
                continue
            place = to / Path(file).relative_to(root)
            try:
                write_file(place, check.fixed(fault.fix, place, Looked(*at[file]), fault.tasks), synced=False)
                mended.append(file)
            except DataError as error:
                left.append(str(error).replace(str(place), file))
        if mended:
            done.append(f"{fault.check}: {plural(len(mended), 'file')}, {mended[0]} first: {check.fixes[fault.fix]}")
    return done, left


def _describe(
    source: str | Path | Mapping[str, Json],
    description: Description,
    diagnosis: Diagnosis,
    to: Path,
    done: list[str],
    left: list[str],
) -> bool:
    """Write the description of the copy; False: the set has none."""
    given = _given(source)
    wanted = [fault for fault in diagnosis.faults if fault.write]
    if given is None or description.layout is not None:
        for fault in wanted:
            left.append(f"{fault.message}: there is no description with tasks of its own to write it into")
    if given is None:
        return False
    made = copy.deepcopy(given)
    made["path"] = "."
    if description.layout is None:
        for fault in wanted:
            _write(made, fault)
            keys = ", ".join(f"{key} = {value}" for key, value in fault.write.items())
            done.append(f"{fault.check}: the copy's data.yaml says {keys}")
    write_file(to / "data.yaml", write_yaml(made).encode(), synced=False)
    return True


def _given(source: str | Path | Mapping[str, Json]) -> dict[str, Any] | None:
    """The keys of a description as they were written; None: a folder without one."""
    if isinstance(source, Mapping):
        return _plain_mapping(source)
    path = given_path(source, "data", DataError)
    if path.is_dir():
        path = path / "data.yaml"
    if not path.is_file() or path.suffix.lower() not in (".yaml", ".yml"):
        return None
    read = read_yaml(path, DataError)
    return _plain_mapping(read) if isinstance(read, Mapping) else None


def _plain_mapping(given: Mapping[str, Json]) -> dict[str, Any]:
    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: plain(entry) for key, entry in value.items()}
        return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value

    return {str(key): plain(value) for key, value in given.items()}


def _write(made: dict[str, Any], fault: Fault) -> None:
    """Write the keys of a fault; lists that stand there already are added to."""
    for key, value in fault.write.items():
        *above, last = key.split(".")
        place: Any = made
        for name in above:
            place = place.setdefault(name, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise OptionError(f"fix: the description has no place for {one_line(key)}; write it there yourself")
        there = place.get(last)
        if isinstance(value, list | tuple) and there is not None:
            known = there if isinstance(there, list) else [there]
            place[last] = [*known, *(entry for entry in value if entry not in known)]
        else:
            place[last] = list(value) if isinstance(value, tuple) else value
