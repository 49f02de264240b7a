"""Tables of paths in a folder: metadata.csv and the like, with a picture a row and columns that name files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import final

from garnish.checking.plain_data import Json
from garnish.data.csv_rows import csv_rows
from garnish.data.guessing.scan import Scan
from garnish.data.guessing.series import FileSeries
from garnish.data.guessing.words import meaning_of, split_of, with_split
from garnish.data.listed import without_suffix
from garnish.errors import DataError
from garnish.files.pictures import PICTURE_SUFFIXES
from garnish.files.regular import read_regular
from garnish.files.strict_json import parse_json

#: Names of tables, and of the column of the pictures, the surest first.
_TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.ndjson")
_PICTURES = ("file_name", "image_file_name", "image", "image_path", "img", "rgb", "filename", "path")
#: Most rows that are looked at, and largest table of JSON, bytes.
_MOST_ROWS, _MOST_JSON = 200_000, 256 * 2**20


@final
@dataclass(frozen=True)
class FoundTable:
    """A table and what its columns name.

    Attributes:
        table: what ``table`` of the description says.
        pictures: the pictures.
        labels: the columns that name other files, for pictures of the same names.
        splits: split → what the table's column ``split`` holds; empty: there is none, or a table for each split.
    """

    table: str
    pictures: FileSeries
    labels: Sequence[FileSeries]
    splits: Mapping[str, Json]


def found_table(scan: Scan) -> FoundTable | None:
    """The table that tells of the pictures of a folder; None: there is none, or it names no files that are here.

    Raises:
        DataError: a table that cannot be read.
    """
    there = [file for file in scan.files if PurePosixPath(file).name.lower() in _TABLES and file.count("/") <= 1]
    by_pattern: dict[str, dict[str, str]] = defaultdict(dict)
    for file in there:
        folder, _, name = file.rpartition("/")
        told = with_split(folder) if folder else ("", "")
        if told is not None:
            by_pattern[f"{told[0]}/{name}" if folder else name][told[1]] = file
    for pattern, files in sorted(by_pattern.items(), key=lambda one: one[0].count("{split}")):
        if (made := _columns(scan, pattern, files)) is not None:
            return made
    return None


def _columns(scan: Scan, pattern: str, files: Mapping[str, str]) -> FoundTable | None:
    known = set(scan.files)
    base = pattern.rpartition("/")[0] + "/" * ("/" in pattern)
    columns: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    values: set[str] = set()
    first: str | None = None
    for split, file in files.items():
        folder = file.rpartition("/")[0] + "/" * ("/" in file)
        for row in _rows(scan, file):
            here = {column: f"{folder}{cell}" for column, cell in row.items() if f"{folder}{cell}" in known}
            if first is None:
                first = next((column for column in _PICTURES if column in here), None)
            if first is None or first not in here:
                continue
            name = without_suffix(row[first], PICTURE_SUFFIXES)
            value = split or (row.get("split", "") if split_of(row.get("split", "")) else "")
            values |= {value} if value and not split else set()
            for column, path in here.items():
                columns[column][value][name] = path
    if first is None:
        return None
    by_column = bool(values)
    splits: dict[str, Json] = {str(split_of(value)): value for value in sorted(values)} if by_column else {}
    made = {column: _series(base, column, names) for column, names in columns.items()}
    others = [one for column, one in made.items() if column != first and meaning_of(f"{{{column}}}") is not None]
    return FoundTable(pattern, made[first], others, splits)


def _series(base: str, column: str, names: Mapping[str, Mapping[str, str]]) -> FileSeries:
    endings = {PurePosixPath(path).suffix for found in names.values() for path in found.values()}
    return FileSeries(base, "", tuple(sorted(endings)), names, template=f"{base}{{{column}}}")


def _rows(scan: Scan, file: str) -> list[dict[str, str]]:
    path = scan.root / file
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = [cells for _, cells in islice(csv_rows(path), _MOST_ROWS)]
        return [dict(zip(rows[0], cells, strict=False)) for cells in rows[1:]] if rows else []
    try:
        lines = read_regular(path, _MOST_JSON).decode("utf-8-sig").splitlines()[:_MOST_ROWS]
        found = [parse_json(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); correct it, or move it away") from None
    return [{str(k): v for k, v in row.items() if isinstance(v, str)} for row in found if isinstance(row, Mapping)]
