"""Lists of names or paths of pictures: text, CSV, JSON and YAML files, and lists in a description itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.data.annotation_files import format_of, read_annotations
from garnish.data.annotations.annotation_format import AnnotationFormat
from garnish.data.csv_rows import MOST_BYTES, csv_rows
from garnish.errors import DataError, one_line, shown
from garnish.files.regular import read_regular
from garnish.files.strict_json import parse_json
from garnish.files.strict_yaml import read_yaml

#: Heads of a CSV column, and keys of a JSON object, that hold names or paths of pictures; the first that is there.
NAME_COLUMNS = ("name", "file_name", "filename", "file", "image", "image_name", "image_path", "image_id", "path", "id")
#: Head of a CSV column that holds the split of a row.
SPLIT_COLUMN = "split"
#: Largest JSON list: its objects take some twenty times as many bytes of memory.
_MOST_JSON = 32 * 2**20


@final
@dataclass(frozen=True)
class ListedName:
    """One entry of a list.

    Attributes:
        text: name or path of a picture.
        where: file and line, for messages.
    """

    text: str
    where: str


def read_lists(file: Path) -> dict[str | None, tuple[ListedName, ...]]:
    """Split → its names, of a file that holds several; None → the names of a file that does not say of which split.

    A text file has a name a line. A CSV has one a row: its first row is a head if one of its cells, in lower case, is
    of :data:`NAME_COLUMNS`, whose first is taken; else the first column is taken from the first row on. A column
    ``split`` of such a head says of which split a row is. JSON and YAML have a list, or split → list. A file of an
    annotation tool that tells of many pictures is the list of these.

    Raises:
        DataError: a file that cannot be read, is too large or is of another form.
    """
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _of_csv(file)
    if suffix == ".txt":
        try:
            lines = read_regular(file, MOST_BYTES).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {file} ({_reason(error)}); give a list of names in UTF-8") from None
        named = (ListedName(line.strip(), f"{file}, line {n}") for n, line in enumerate(lines, 1))
        return {None: tuple(name for name in named if name.text)}
    if (cls := _format(file)) is not None and not cls.one_a_picture:
        pictures = read_annotations(file).held.pictures
        return {None: tuple(ListedName(name, f"{file}: {shown(name)}") for name in pictures)}
    found = _json(file) if suffix == ".json" else read_yaml(file, DataError)
    if isinstance(found, Mapping):
        return {str(split): inline_names(names, f"{file}: {split}") for split, names in found.items()}
    return {None: inline_names(found, str(file))}


def inline_names(given: Json, where: str) -> tuple[ListedName, ...]:
    """The names of a list of texts, numbers, or mappings with one of :data:`NAME_COLUMNS`.

    Raises:
        DataError: anything else.
    """
    if not isinstance(given, list | tuple):
        raise DataError(f"{where}: {shown(given)} is no list of names; write [name, name, …]")
    made = []
    for number, entry in enumerate(given, 1):
        at = f"{where}, entry {number}"
        value = entry
        if isinstance(entry, Mapping):
            value = next((entry[key] for key in NAME_COLUMNS if key in entry), None)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise DataError(f"{at}: {shown(entry)} names no picture; write its name or path")
        made.append(ListedName(str(value).strip(), at))
    return tuple(made)


def names_of_split(lists: Mapping[str | None, Sequence[ListedName]], split: str, file: Path) -> Sequence[ListedName]:
    """The names that :func:`read_lists` found for a split.

    Raises:
        DataError: the file tells of other splits only.
    """
    if split in lists:
        return lists[split]
    if None in lists:
        return lists[None]
    raise DataError(f"{file}: holds no split {shown(split)}, but {', '.join(map(shown, lists))}; correct `splits`")


def _of_csv(file: Path) -> dict[str | None, tuple[ListedName, ...]]:
    found: dict[str | None, list[ListedName]] = {}
    column, of_split = 0, None
    for row, (number, cells) in enumerate(csv_rows(file)):
        if row == 0:
            heads = [cell.casefold() for cell in cells]
            named = next((heads.index(name) for name in NAME_COLUMNS if name in heads), None)
            if named is not None:
                column, of_split = named, heads.index(SPLIT_COLUMN) if SPLIT_COLUMN in heads else None
                continue
        split = None
        if of_split is not None:
            split = cells[of_split] if of_split < len(cells) else ""
            if not split:
                raise DataError(f"{file}, line {number}: column {SPLIT_COLUMN!r} is empty; name the split")
        if column >= len(cells) or not cells[column]:
            raise DataError(f"{file}, line {number}: column {column + 1} names no picture; complete or remove the line")
        found.setdefault(split, []).append(ListedName(cells[column], f"{file}, line {number}"))
    return {split: tuple(names) for split, names in (found or {None: []}).items()}


def _format(file: Path) -> type[AnnotationFormat] | None:
    return format_of(file) if file.is_file() else None


def _json(file: Path) -> Json:
    try:
        found: Json = parse_json(read_regular(file, _MOST_JSON))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({_reason(error)}); save standard JSON") from None
    return found


def _reason(error: Exception) -> str:
    """Why a file was not read, without its path."""
    return error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, 100)
