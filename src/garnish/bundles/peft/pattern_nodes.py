"""Matching a regular expression that was read with a name, on all positions at once, without backtracking.

A whole number holds one bit for each position 0 … n of a name of n characters. From the end of the name to its start,
every node of the expression maps the set of positions where it may end to the set of those where it then begins.
Repeats stop once no position is new, so nothing is tried twice. Groups capture nothing, since nobody asks for their
text. Nothing here needs torch.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

#: What matching the expressions of one folder may take, in visits of a node; about two seconds.
MOST_STEPS = 4_000_000


@final
class TooMuchWork(Exception):
    """The expressions of a folder have taken :data:`MOST_STEPS`."""


@final
class Work:
    """Counts the steps of matching, over all names and expressions of a folder."""

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self.left = steps

    def spend(self, steps: int = 1) -> None:
        """Raises :class:`TooMuchWork` if there are none left."""
        self.left -= steps
        if self.left < 0:
            raise TooMuchWork


@final
class Name:
    r"""A module name to match expressions with, printable.

    Attributes:
        text: the name.
        end: the position after its last character.
        masks: character → the positions where it stands, one bit each.
        at: ``^``, ``$``, ``\b`` → the positions where that holds.
        starts: the positions from which the rest is the whole name, or a part of it after a dot.
        everywhere: all positions.
        work: what matching may take.
    """

    def __init__(self, text: str, work: Work) -> None:
        self.text, self.end, self.work = text, len(text), work
        work.spend(100)
        self.masks: dict[str, int] = {}
        for place, character in enumerate(text):
            self.masks[character] = self.masks.get(character, 0) | 1 << place
        self._sets: dict[str, int] = {}
        words = self.standing(r"\w")
        self.everywhere = (1 << self.end + 1) - 1
        self.at = {"^": 1, "$": 1 << self.end, r"\b": words ^ words << 1}
        self.starts = 1 | self.masks.get(".", 0) << 1

    def standing(self, one_of: str) -> int:
        r"""The positions of characters that a set such as ``[a-z]`` or ``\d`` holds."""
        if one_of not in self._sets:
            self.work.spend(20)
            holds = re.compile(one_of).fullmatch
            self._sets[one_of] = sum(mask for character, mask in self.masks.items() if holds(character))
        return self._sets[one_of]


class PatternNode(ABC):
    """A part of an expression."""

    @abstractmethod
    def begins(self, ends: int, name: Name) -> int:
        """The positions from which it leads to one of the positions ``ends``."""


@final
@dataclass(frozen=True)
class PatternText(PatternNode):
    """Characters one after the other."""

    text: str

    def begins(self, ends: int, name: Name) -> int:
        """As :meth:`PatternNode.begins`."""
        walked = 0
        for character in reversed(self.text):
            ends = ends >> 1 & name.masks.get(character, 0)
            walked += 1
            if not ends:
                break
        name.work.spend(1 + walked // 8)
        return ends


@final
@dataclass(frozen=True)
class AnyCharacter(PatternNode):
    """``.``; names hold no line breaks."""

    def begins(self, ends: int, name: Name) -> int:
        """As :meth:`PatternNode.begins`."""
        name.work.spend()
        return ends >> 1


@final
@dataclass(frozen=True)
class CharacterSet(PatternNode):
    """One of a set of characters; what the set holds is asked of ``re``, one character at a time."""

    text: str

    def begins(self, ends: int, name: Name) -> int:
        """As :meth:`PatternNode.begins`."""
        name.work.spend()
        return ends >> 1 & name.standing(self.text)


@final
@dataclass(frozen=True)
class Boundary(PatternNode):
    r"""``^``, ``$`` or ``\b``."""

    sign: str

    def begins(self, ends: int, name: Name) -> int:
        """As :meth:`PatternNode.begins`."""
        name.work.spend()
        return ends & name.at[self.sign]


@final
@dataclass(frozen=True)
class LookAhead(PatternNode):
    """Holds at a position from which ``inside`` leads anywhere, or with ``refused``, nowhere."""

    inside: PatternNode
    refused: bool

    def begins(self, ends: int, name: Name) -> int:
        """As :meth:`PatternNode.begins`."""
        name.work.spend()
        found = self.inside.begins(name.everywhere, name)
        return ends & ~found if self.refused else ends & found


@final
@dataclass(frozen=True)
class PatternSeries(PatternNode):
    """Parts one after the other."""

    parts: tuple[PatternNode, ...]

    def begins(self, ends: int, name: Name) -> int:
        """As :meth:`PatternNode.begins`."""
        for part in reversed(self.parts):
            if not ends:
                break
            ends = part.begins(ends, name)
        return ends


@final
@dataclass(frozen=True)
class PatternChoice(PatternNode):
    """One of several."""

    options: tuple[PatternNode, ...]

    def begins(self, ends: int, name: Name) -> int:
        """As :meth:`PatternNode.begins`."""
        name.work.spend()
        found = 0
        for option in self.options:
            found |= option.begins(ends, name)
        return found


@final
@dataclass(frozen=True)
class PatternRepeat(PatternNode):
    """``inside`` from ``least`` to ``most`` times (None: any number of times)."""

    inside: PatternNode
    least: int
    most: int | None

    def begins(self, ends: int, name: Name) -> int:
        """As :meth:`PatternNode.begins`."""
        # beyond one time for each position, a time more or less without a character changes nothing
        for _ in range(min(self.least, name.end + 2)):
            name.work.spend()
            ends = self.inside.begins(ends, name)
        found = new = ends
        left = name.end + 1 if self.most is None else self.most - self.least
        while new and left > 0:
            name.work.spend()
            new = self.inside.begins(new, name) & ~found
            found |= new
            left -= 1
        return found
