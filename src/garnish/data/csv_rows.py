"""Rows of a CSV file of a stranger, one after the other, of bounded sizes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from garnish.errors import DataError, one_line
from garnish.files.regular import open_regular

#: Largest table or list of names, bytes: some millions of rows.
MOST_BYTES = 256 * 2**20
#: Longest row, characters, with the line breaks of quoted cells.
_MOST_ROW = 2**20


def csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, cells without blanks around them) of each row that holds something.

    Cells are parted by tabs if the first row has one, by semicolons if it has some and no comma, else by commas.

    Raises:
        DataError: no such file, more than :data:`MOST_BYTES`, no UTF-8, or damaged quotes.
    """
    number = 0
    try:
        with open_regular(file, MOST_BYTES) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
            first = text.readline(_MOST_ROW)
            text.seek(0)
            by = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
            lines = _Lines(text)
            for cells in csv.reader(lines, delimiter=by, strict=True):
                number, lines.row = lines.number, 0
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield number, stripped
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, 100)
        place = f" behind line {number}" if number else ""
        raise DataError(f"{file}: cannot be read{place} ({reason}); save it as CSV in UTF-8") from None


class _Lines:
    """The lines of a text, counted; a row may be long, but no more than :data:`_MOST_ROW`."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.text, self.number, self.row = text, 0, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(_MOST_ROW + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.row += len(line)
        if self.row > _MOST_ROW:
            raise csv.Error(f"line {self.number}: a row of more than {_MOST_ROW:,} characters")
        return line
