"""What annotations say of values beside their type: the ends of numbers and of lengths, the form of text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final


@final
@dataclass(frozen=True, repr=False)
class Within:
    """In ``Annotated``: what a message calls the values of a type that are meant, and which ones those are.

    Attributes:
        called: in messages; of a number of entries it follows what the entries are.
        holds: whether a value of the type is one of them.
        ends: of a range of numbers, or of a number of entries or letters; None: it is no range.
        of: what ``ends`` are about.
        finite: whether numbers that are not finite are refused before ``holds`` is asked.
    """

    called: str
    holds: Callable[[Any], object] = lambda _: True
    ends: tuple[float, float] | None = None
    of: Literal["values", "lengths"] = "values"
    finite: bool = True

    def __repr__(self) -> str:  # as ``help`` shows it, in signatures
        return f"<{self.called}>"


def integers(least: int, most: int) -> Within:
    """Whole numbers from ``least`` to ``most``, both among them."""
    told = f"a whole number from {least:,} to {most:,}"
    return Within(told, lambda value: least <= value <= most, (least, most))


def reals(least: float, most: float, *, above: bool = False, below: bool = False) -> Within:
    """Numbers from ``least`` to ``most``; ``above``, ``below``: without that end."""
    told = f"a number {'above' if above else 'from'} {least:,g} {'to below' if below else 'to'} {most:,g}"
    return Within(
        told,
        lambda value: (least < value if above else least <= value) and (value < most if below else value <= most),
        (least, most),
    )


def lengths(least: int, most: int) -> Within:
    """Lists, mappings and texts of ``least`` to ``most`` entries or letters."""
    told = f"{least:,}" if least == most else f"{least:,} to {most:,}" if least else f"at most {most:,}"
    return Within(f"{told} of them", lambda value: least <= len(value) <= most, (least, most), of="lengths")


#: A measured number: NaN or infinite where nothing, or too much, was measured.
MEASURED = Within("a number", finite=False)


def matching(pattern: str) -> Within:
    """Text that is as a regular expression says from its first to its last character."""
    return Within(f"text like {pattern}", re.compile(pattern).fullmatch)
