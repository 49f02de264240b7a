"""The table of a description: a CSV or a list of JSON objects with a picture a row, and the files of its labels.

Templates name its columns in braces: ``images: "{file_name}"``, ``labels: "{mask_file_name}"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.data.csv_rows import MOST_BYTES, csv_rows
from garnish.data.listed import files_there, without_suffix
from garnish.data.name_lists import SPLIT_COLUMN
from garnish.data.patterns import checked_pattern, columns_of, filled, stays_below
from garnish.errors import DataError, OptionError, one_line, shown, suggest
from garnish.files.regular import open_regular
from garnish.files.strict_json import parse_json

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
#: Longest line of JSON, bytes.
_MOST_LINE = 2**20


@final
@dataclass(frozen=True)
class TableRow:
    """One picture of a table.

    Attributes:
        cells: column → text, of the columns that templates name and of the split.
        where: file and line, for messages.
    """

    cells: Mapping[str, str]
    where: str


@final
class Table:
    """The rows of a description's table, read once.

    Args:
        source: the description, for messages.
        root: the folder that paths are relative to.
        file: the table, relative to ``root``; may hold ``{split}``.
        split: column that says of which split a row is; None: ``split`` if there is such a column.
        images: the template of the pictures.
        labels: the templates of all labels.
    """

    def __init__(
        self, source: str, root: Path, file: str, split: str | None, images: str, labels: Sequence[str]
    ) -> None:
        self.source, self.root, self.file, self.split, self.images = source, root, file, split, images
        self.columns = tuple(dict.fromkeys(column for text in (images, *labels) for column in columns_of(text)))
        self._read: dict[Path, tuple[bool, list[TableRow]]] = {}

    @property
    def by_file(self) -> bool:
        """Whether every split has a table of its own."""
        return "{split}" in self.file

    def values(self) -> list[str]:
        """What the column of the split holds, in the order of rows; empty: there is none, or a table for each split."""
        if self.by_file:
            return []
        has_split, rows = self._rows("")
        return list(dict.fromkeys(row.cells[self._split_column] for row in rows)) if has_split else []

    def has(self, value: str) -> bool:
        """Whether there are rows of a split, by the name of its folder or what its column holds."""
        if self.by_file:
            return (self.root / filled(self.file, split=value)).is_file()
        return value in self.values()

    def rows(self, value: str | None) -> list[TableRow]:
        """The rows of a split; None: all.

        Raises:
            DataError: a table that cannot be read or lacks a column, or no row of this split.
        """
        has_split, rows = self._rows(value or "")
        if value is None or self.by_file or not has_split:
            return rows
        found = [row for row in rows if row.cells[self._split_column] == value]
        if not found:
            raise DataError(
                f"{self.source}: {self.root / self.file}: column {self._split_column!r} holds no"
                f" {shown(value)}{suggest(value, self.values())}; ask for another split, or correct `splits`"
            )
        return found

    def pictures(
        self, rows: Sequence[TableRow], split: str, suffixes: tuple[str, ...]
    ) -> dict[str, tuple[Path, TableRow]]:
        """Name → file and row of each picture; the name is what stands for the template from its first column on.

        Raises:
            DataError: an empty cell, a path that leads out of ``root``, a missing picture, two rows of one picture.
        """
        found: dict[str, tuple[Path, TableRow]] = {}
        template = filled(self.images, split=split)
        before = template.partition("{")[0]
        for row in rows:
            text = self.path(template, row)
            if text is None:
                raise DataError(
                    f"{row.where}: a column of `images: {self.images}` is empty; complete or remove the line"
                )
            first, there = files_there(self.root / text, suffixes)
            named = f"column {', '.join(columns_of(self.images))}"
            if not there:
                raise DataError(f"{row.where}, {named}: no picture {first}; restore it or remove the line")
            name = without_suffix(text[len(before) :], suffixes)
            if name in found:
                raise DataError(
                    f"{row.where}, {named}: {name!r} stands in {found[name][1].where} already; remove one of the lines"
                )
            found[name] = (there[0], row)
        return found

    def path(self, template: str, row: TableRow) -> str | None:
        """A template filled from a row; None: one of its columns is empty there.

        Raises:
            DataError: the cell is no plain relative path.
        """
        for column in columns_of(template):
            value = row.cells[column].removeprefix("./")
            if not value:
                return None
            if not stays_below(value) or len(value) > 4096:
                raise DataError(
                    f"{row.where}, column {column}: {shown(value)} is not a plain relative path; write paths below"
                    f" {self.root}, without '..' or a '/' in front"
                )
            template = template.replace("{" + column + "}", value)
        return template

    @property
    def _split_column(self) -> str:
        return self.split or SPLIT_COLUMN

    def _rows(self, value: str) -> tuple[bool, list[TableRow]]:
        """Whether there is a column of the split, and all rows."""
        file = self.root / filled(self.file, split=value)
        if file not in self._read:
            has_split = False
            rows: list[TableRow] = []
            seen: dict[str, None] = {}
            for number, cells in _records(file):
                where = f"{file}, line {number}"
                has_split = has_split if rows else not self.by_file and self._split_column in cells
                seen |= dict.fromkeys(cells)
                wanted = (*self.columns, self._split_column) if has_split else self.columns
                # an object of a line may lack a key, as Hugging Face writes them
                texts = {column: _text(cells.get(column), f"{where}, column {column}") for column in wanted}
                if has_split and not texts[self._split_column]:
                    raise DataError(f"{where}: column {self._split_column!r} is empty; name the split")
                rows.append(TableRow(texts, where))
            if not rows:
                raise DataError(f"{file}: has no rows; write a head and a picture a row")
            for column in (*self.columns, *([] if self.split is None else [self.split])):
                if column not in seen:
                    raise DataError(f"{file}: has no column {shown(column)}{suggest(column, seen)}")
            self._read[file] = (has_split, rows)
        return self._read[file]


def read_table(given: Json, source: str, root: Path, images: str, labels: Sequence[str]) -> Table:
    """The table that a description names: ``metadata.csv``, or ``{file: metadata.csv, split: fold}``.

    Raises:
        OptionError: another value, or templates that a table cannot fill.
    """
    told = dict(given) if isinstance(given, Mapping) else {"file": given}
    file, split = told.pop("file", None), told.pop("split", None)
    if told or not isinstance(file, str) or not isinstance(split, str | None):
        raise OptionError(
            f"{source}: table: {shown(given)}; write e.g. metadata.csv, or {{file: all.csv, split: fold}}"
        )
    if not file.lower().endswith(TABLE_SUFFIXES):
        raise OptionError(f"{source}: table: {shown(file)}; give a file that ends in {', '.join(TABLE_SUFFIXES)}")
    checked_pattern(file, f"{source}: table")
    if "{name}" in file or "*" in file or "?" in file:
        raise OptionError(f"{source}: table: {file!r} must name one file, or one a split by {{split}}")
    if "{split}" in file and split is not None:
        raise OptionError(f"{source}: table: either {{split}} in the file's name or a column `split`; keep one")
    if not columns_of(images) or "{name}" in images or "*" in images or "?" in images:
        raise OptionError(
            f'{source}: images: {images!r}; with a table write its column in braces, such as "{{file_name}}" or'
            ' "pictures/{id}.jpg"'
        )
    return Table(source, root, file, split, images, labels)


def _records(file: Path) -> Iterator[tuple[int, Mapping[str, Json]]]:
    """(line, column → value) of each row."""
    if file.suffix.lower() in (".csv", ".tsv"):
        head: list[str] | None = None
        for number, cells in csv_rows(file):
            if head is None:
                head = cells
                if twice := [name for name in head if name and head.count(name) > 1]:
                    raise DataError(f"{file}: has two columns {twice[0]!r}; rename one")
                continue
            if len(cells) > len(head):
                raise DataError(
                    f"{file}, line {number}: {len(cells)} cells for {len(head)} columns; quote cells with commas"
                )
            yield number, dict(zip(head, cells + [""] * (len(head) - len(cells)), strict=True))
        return
    number = 0
    try:
        with open_regular(file, MOST_BYTES) as stream:
            while line := stream.readline(_MOST_LINE + 1):
                number += 1
                if len(line) > _MOST_LINE:
                    raise ValueError(f"more than {_MOST_LINE:,} bytes in one line")
                if line.strip():
                    found = parse_json(line)
                    if not isinstance(found, dict):
                        raise ValueError("it is no object")
                    yield number, found
    except (OSError, ValueError) as error:
        place = f", line {number}" if isinstance(error, ValueError) else ""
        raise DataError(f"{file}{place}: cannot be read ({one_line(error, 100)}); write an object a line") from None


def _text(value: Json, where: str) -> str:
    """A cell as text; null is empty."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}: {shown(value)} is no path; write text")
    return str(value).strip()
