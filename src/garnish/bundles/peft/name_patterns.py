r"""Regular expressions of strangers for module names, matched without backtracking.

PEFT hands the expressions of ``adapter_config.json`` to Python's ``re``, which can take for ever: ``(.|.)*X`` doubles
its time with every character. Here a stated part of the language is read, and everything else is refused:

- characters, ``\`` before punctuation, ``.``, ``[...]``, ``\d``, ``\w``, ``\s`` and their opposites;
- ``(...)``, ``(?:...)``, ``|``;
- ``*``, ``+``, ``?``, ``{m}``, ``{m,n}``, greedy or lazy, of numbers up to 9,999;
- ``^``, ``$``, ``\b``, and looking ahead: ``(?=...)``, ``(?!...)``.

What is read means what it means to ``re.fullmatch``; :mod:`garnish.bundles.peft.pattern_nodes` matches it.

Nothing here needs torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

from garnish.bundles.peft.pattern_nodes import (
    AnyCharacter,
    Boundary,
    CharacterSet,
    LookAhead,
    Name,
    PatternChoice,
    PatternNode,
    PatternRepeat,
    PatternSeries,
    PatternText,
)
from garnish.errors import one_line

#: Longest expression, characters.
MOST_CHARACTERS = 10_000
#: Groups within groups.
MOST_DEPTH = 20

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


@final
@dataclass(frozen=True)
class NamePattern:
    """An expression that was read.

    Attributes:
        text: as it stands in the file.
    """

    text: str
    _whole: PatternNode

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

    def whole(self) -> PatternNode:
        node = self._choice(0)
        if self.place < len(self.text):
            raise UnreadPattern("closes a group that was not opened")
        return node

    def _choice(self, depth: int) -> PatternNode:
        """Up to the end, or before the ``)`` of the group."""
        if depth > MOST_DEPTH:
            raise UnreadPattern(f"has groups within groups, more than {MOST_DEPTH} deep")
        options: list[PatternNode] = []
        parts: list[PatternNode] = []
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
        return options[0] if len(options) == 1 else PatternChoice(tuple(options))

    def _token(self) -> re.Match[str]:
        found = _TOKEN.match(self.text, self.place)
        if found is None:
            raise UnreadPattern(f"holds {one_line(self.text[self.place :], 12)}, which is not read")
        return found

    def _group(self, opening: str, depth: int) -> PatternNode:
        inside = self._choice(depth + 1)
        if self.place == len(self.text):
            raise UnreadPattern("opens a group that is not closed")
        self.place += 1
        return inside if opening in ("(", "(?:") else LookAhead(inside, refused=opening == "(?!")


def _leaf(kind: str, token: str) -> PatternNode:
    if kind == "at":
        return Boundary(token)
    if kind == "any":
        return AnyCharacter()
    if kind != "set":
        return PatternText(token)
    try:
        if any(pair in token for pair in _RESERVED):
            raise UnreadPattern(f"holds {one_line(token, 20)}, which is not read")
        re.compile(token)
    except (re.error, OverflowError) as error:
        raise UnreadPattern(f"holds {one_line(token, 20)}: {one_line(error, 60)}") from None
    return CharacterSet(token)


def _repeat(node: PatternNode, sign: str) -> PatternNode:
    if sign[0] != "{":
        return PatternRepeat(node, int(sign == "+"), 1 if sign == "?" else None)
    least, comma, most = sign[1:-1].partition(",")
    low = int(least or 0)
    high = low if not comma else int(most) if most else None
    if high is not None and high < low:
        raise UnreadPattern(f"repeats with {sign}, whose numbers are the wrong way round")
    return PatternRepeat(node, low, high)


def _joined(parts: list[PatternNode]) -> PatternNode:
    """The parts one after the other, texts side by side as one."""
    joined: list[PatternNode] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, PatternText) and isinstance(last, PatternText):
            joined[-1] = PatternText(last.text + part.text)
        else:
            joined.append(part)
    return joined[0] if len(joined) == 1 else PatternSeries(tuple(joined))
