"""Text of strangers in Markdown: shown as it is, never read as markup, a link or HTML."""

from __future__ import annotations

from collections.abc import Sequence

from garnish.errors import one_line


def code(text: object, limit: int = 120) -> str:
    """A text as code, in which nothing is markup; of one line and at most ``limit`` characters."""
    line = one_line(text, limit).replace("`", "'").strip()
    return f"`{line}`" if line else "–"


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; cells must be Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
