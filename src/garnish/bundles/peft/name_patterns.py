r"""Regular expressions of strangers for module names, matched without backtracking.

PEFT hands the expressions of ``adapter_config.json`` to Python's ``re``, which can take for ever: ``(.|.)*X`` doubles
its time with every character. Here a stated part of the language is read, and everything else is refused:

- characters, ``\`` before punctuation, ``.``, ``[...]``, ``\d``, ``\w``, ``\s`` and their opposites;
- ``(...)``, ``(?:...)``, ``|``;
- ``*``, ``+``, ``?``, ``{m}``, ``{m,n}``, greedy or lazy, of numbers up to 9,999;
- ``^``, ``$``, ``\b``, and looking ahead: ``(?=...)``, ``(?!...)``.

What is read means what it means to ``re.fullmatch``. An expression is matched from the end of a name to its start, on
all positions at once: a whole number holds one bit for each position 0 … n of a name of n characters, and every node
of the expression maps the set of positions where it may end to the set of those where it then begins. Repeats stop
once no position is new, so nothing is tried twice. Groups capture nothing, since nobody asks for their text.

Nothing here needs torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

from garnish.errors import one_line

#: Longest expression, characters.
MOST_CHARACTERS = 10_000
#: Groups within groups.
MOST_DEPTH = 20
#: What matching the expressions of one folder may take, in visits of a node; about two seconds.
MOST_STEPS = 4_000_000

_TOKEN = re.compile(
    r"""
    (?P<repeat> [*+?] | \{[0-9]{1,4}(?:,[0-9]{0,4})?\} | \{,[0-9]{1,4}\} ) \??
    | (?P<open> \((?!\?) | \(\?[:=!] )
    | (?P<at> \^ | \$ | \\b )
    | (?P<set> \\[dDwWsS] | \[ \^? (?: [^\[\]\\] | \\[^A-Za-z0-9] | \\[dDwWsS] )+ \] )
    | (?P<any> \. )
    | \\ (?P<escaped> [^A-Za-z0-9] )
    | (?P<bar> \| )
    | (?P<close> \) )
    | (?P<plain> [^\\\[\](){}] )
    """,
    re.VERBOSE | re.DOTALL,
)
#: Pairs that a later ``re`` may read as operations on sets.
_RESERVED = ("--", "&&", "~~", "||")


class UnreadPattern(ValueError):
    """An expression beyond the part that is read; its text says which part of it."""


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


@dataclass(frozen=True)
class _Node:
    """A part of an expression."""

    def begins(self, ends: int, name: Name) -> int:
        """The positions from which it leads to one of the positions ``ends``."""
        raise NotImplementedError


@final
@dataclass(frozen=True)
class _Text(_Node):
    """Characters one after the other."""

    text: str

    def begins(self, ends: int, name: Name) -> int:
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
class _Any(_Node):
    """``.``; names hold no line breaks."""

    def begins(self, ends: int, name: Name) -> int:
        name.work.spend()
        return ends >> 1


@final
@dataclass(frozen=True)
class _Set(_Node):
    """One of a set of characters; what the set holds is asked of ``re``, one character at a time."""

    text: str

    def begins(self, ends: int, name: Name) -> int:
        name.work.spend()
        return ends >> 1 & name.standing(self.text)


@final
@dataclass(frozen=True)
class _At(_Node):
    sign: str

    def begins(self, ends: int, name: Name) -> int:
        name.work.spend()
        return ends & name.at[self.sign]


@final
@dataclass(frozen=True)
class _Ahead(_Node):
    """Holds at a position from which ``inside`` leads anywhere, or with ``refused``, nowhere."""

    inside: _Node
    refused: bool

    def begins(self, ends: int, name: Name) -> int:
        name.work.spend()
        found = self.inside.begins(name.everywhere, name)
        return ends & ~found if self.refused else ends & found


@final
@dataclass(frozen=True)
class _Series(_Node):
    parts: tuple[_Node, ...]

    def begins(self, ends: int, name: Name) -> int:
        for part in reversed(self.parts):
            if not ends:
                break
            ends = part.begins(ends, name)
        return ends


@final
@dataclass(frozen=True)
class _Choice(_Node):
    options: tuple[_Node, ...]

    def begins(self, ends: int, name: Name) -> int:
        name.work.spend()
        found = 0
        for option in self.options:
            found |= option.begins(ends, name)
        return found


@final
@dataclass(frozen=True)
class _Repeat(_Node):
    """``inside`` from ``least`` to ``most`` times (None: any number of times)."""

    inside: _Node
    least: int
    most: int | None

    def begins(self, ends: int, name: Name) -> int:
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


@final
@dataclass(frozen=True)
class NamePattern:
    """An expression that was read.

    Attributes:
        text: as it stands in the file.
    """

    text: str
    _whole: _Node

    @classmethod
    def read(cls, text: str) -> NamePattern:
        """Read an expression; raises :class:`UnreadPattern` for one beyond the part of the language that is read."""
        if len(text) > MOST_CHARACTERS:
            raise UnreadPattern(f"has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
        return cls(text, _Parser(text).whole())

    def is_whole(self, name: Name) -> bool:
        """Whether it matches the whole name."""
        return bool(self._whole.begins(1 << name.end, name) & 1)

    def is_tail(self, name: Name) -> bool:
        """Whether it matches the whole name, or what stands behind one of its dots."""
        return bool(self._whole.begins(1 << name.end, name) & name.starts)


@final
class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0

    def whole(self) -> _Node:
        node = self._choice(0)
        if self.place < len(self.text):
            raise UnreadPattern("closes a group that was not opened")
        return node

    def _choice(self, depth: int) -> _Node:
        """Up to the end, or before the ``)`` of the group."""
        if depth > MOST_DEPTH:
            raise UnreadPattern(f"has groups within groups, more than {MOST_DEPTH} deep")
        options: list[_Node] = []
        parts: list[_Node] = []
        can_repeat = False
        while self.place < len(self.text):
            found = self._token()
            kind, token = str(found.lastgroup), found[found.lastgroup or 0]
            if kind == "close":
                break
            self.place = found.end()
            if kind == "bar":
                options.append(_joined(parts))
                parts = []
            elif kind == "repeat":
                if not can_repeat:
                    raise UnreadPattern(f"repeats with {token} what cannot be repeated")
                parts[-1] = _repeat(parts[-1], token)
            else:
                parts.append(self._group(token, depth) if kind == "open" else _leaf(kind, token))
            can_repeat = kind in ("set", "any", "escaped", "plain") or token in ("(", "(?:")
        options.append(_joined(parts))
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _token(self) -> re.Match[str]:
        found = _TOKEN.match(self.text, self.place)
        if found is None:
            raise UnreadPattern(f"holds {one_line(self.text[self.place :], 12)}, which is not read")
        return found

    def _group(self, opening: str, depth: int) -> _Node:
        inside = self._choice(depth + 1)
        if self.place == len(self.text):
            raise UnreadPattern("opens a group that is not closed")
        self.place += 1
        return inside if opening in ("(", "(?:") else _Ahead(inside, refused=opening == "(?!")


def _leaf(kind: str, token: str) -> _Node:
    if kind == "at":
        return _At(token)
    if kind == "any":
        return _Any()
    if kind != "set":
        return _Text(token)
    try:
        if any(pair in token for pair in _RESERVED):
            raise UnreadPattern(f"holds {one_line(token, 20)}, which is not read")
        re.compile(token)
    except (re.error, OverflowError) as error:
        raise UnreadPattern(f"holds {one_line(token, 20)}: {one_line(error, 60)}") from None
    return _Set(token)


def _repeat(node: _Node, sign: str) -> _Node:
    if sign[0] != "{":
        return _Repeat(node, int(sign == "+"), 1 if sign == "?" else None)
    least, comma, most = sign[1:-1].partition(",")
    low = int(least or 0)
    high = low if not comma else int(most) if most else None
    if high is not None and high < low:
        raise UnreadPattern(f"repeats with {sign}, whose numbers are the wrong way round")
    return _Repeat(node, low, high)


def _joined(parts: list[_Node]) -> _Node:
    """The parts one after the other, texts side by side as one."""
    joined: list[_Node] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, _Text) and isinstance(last, _Text):
            joined[-1] = _Text(last.text + part.text)
        else:
            joined.append(part)
    return joined[0] if len(joined) == 1 else _Series(tuple(joined))
