"""Strict YAML: numbers and booleans as in YAML 1.2, keys once, and bounds on what a file of a stranger can ask for.

PyYAML finds the events of a text; the values are made from them here, so that none of its tags, shared objects and
exponential aliases are there to be refused. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from garnish.checking.plain_data import Json
from garnish.errors import GarnishError, OptionError, one_line, showable, shown
from garnish.files.regular import read_regular

#: Largest file, bytes; recipes and descriptions have some kilobytes, and PyYAML needs seconds for the worst that fits.
MOST_BYTES = 128 * 2**10
#: Largest depth, aliases replaced by what they stand for.
MOST_DEPTH = 48
#: Most that a file can stand for, aliases replaced: characters of text, and eight more for every value.
MOST_SIZE = 2**20

_TAGS = "tag:yaml.org,2002:"
#: A float of YAML 1.2: in YAML 1.1, which PyYAML reads, ``1e-3`` is text.
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")  # 010 stays text: 8 to some, 10 to others
#: Tag → the texts that it stands for when they are not quoted.
_PLAIN = {
    "bool": re.compile("true|True|TRUE|false|False|FALSE"),
    "int": _INT,
    "float": _FLOAT,
    "null": re.compile("~|null|Null|NULL|"),
}


@final
class _Values:
    """The values of one YAML text; an alias gets a value of its own, so that setting one leaves the other."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[Event] = iter(yaml.parse(text, yaml.SafeLoader))
        self.anchors: dict[str, Json] = {}
        self.size = 0

    def document(self) -> Json:
        """The value of the only document; None if there is none."""
        next(self.events)
        if not isinstance(next(self.events), DocumentStartEvent):
            return None
        value = self.value(next(self.events), 0)
        next(self.events)
        if isinstance(event := next(self.events), DocumentStartEvent):
            self.refuse(event, "another document follows; keep one")
        return value

    def value(self, event: Event, depth: int) -> Json:
        """The value that an event and the next ones describe."""
        if isinstance(event, AliasEvent):
            if event.anchor not in self.anchors:
                self.refuse(event, f"*{one_line(event.anchor, 40)} has no & before it that is complete")
            return self.copied(self.anchors[event.anchor], depth, event)
        assert isinstance(event, NodeEvent)
        self.count(event, depth, len(event.value) if isinstance(event, ScalarEvent) else 0)
        if event.anchor is not None and event.anchor in self.anchors:
            self.refuse(event, f"&{one_line(event.anchor, 40)} stands twice")
        if isinstance(event, ScalarEvent):
            made = self.scalar(event)
        elif isinstance(event, SequenceStartEvent):
            self.check_tag(event, "seq")
            made = []
            while not isinstance(one := next(self.events), SequenceEndEvent):
                made.append(self.value(one, depth + 1))
        else:
            assert isinstance(event, MappingStartEvent)
            self.check_tag(event, "map")
            made = self.mapping(depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = made
        return made

    def mapping(self, depth: int) -> dict[str | int, Json]:
        """A mapping up to its end; what ``<<`` merges stands before its own entries."""
        merged: dict[str | int, Json] = {}
        own: dict[str | int, Json] = {}
        seen = set()
        while not isinstance(at := next(self.events), MappingEndEvent):
            if isinstance(at, ScalarEvent) and at.value == "<<" and (at.implicit[0] or at.tag == f"{_TAGS}merge"):
                found = self.value(next(self.events), depth + 1)
                for one in reversed(found) if isinstance(found, list) else [found]:
                    if not isinstance(one, dict):
                        self.refuse(at, f"<< merges mappings, got {shown(one)}")
                    merged.update(one)
                continue
            key = self.value(at, depth + 1)
            if isinstance(key, bool) or not isinstance(key, str | int):
                self.refuse(at, f"key {shown(key)}: a key is text or a whole number")
            if str(key) in seen:  # 1 and "1" would be one key in JSON
                self.refuse(at, f"key {shown(str(key))} occurs twice")
            seen.add(str(key))
            own[key] = self.value(next(self.events), depth + 1)
        return {key: value for key, value in merged.items() if str(key) not in seen} | own

    def scalar(self, event: ScalarEvent) -> Json:
        """Text, or what text without quotes stands for."""
        text: str = event.value
        if event.implicit[0]:
            tag = next((tag for tag, pattern in _PLAIN.items() if pattern.fullmatch(text)), "str")
        elif event.implicit[1]:
            tag = "str"
        else:
            tag = str(event.tag).removeprefix(_TAGS)
            if tag not in _PLAIN and tag != "str":
                self.refuse(event, f"tag {one_line(tag, 40)}; only str, int, float, bool, null, seq and map are read")
            if tag in _PLAIN and not _PLAIN[tag].fullmatch(text):
                self.refuse(event, f"{shown(text)} is no {tag}")
        if tag == "str":
            if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
                self.refuse(event, f"{shown(text)} holds a character that no text has")
            return text
        if tag == "float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan") if text[-1:].isalpha() else text)
        if tag == "int" and len(text) > 40:
            self.refuse(event, f"{one_line(text, 40)} is beyond all whole numbers that are used")
        return int(text) if tag == "int" else text.lower() == "true" if tag == "bool" else None

    def copied(self, value: Json, depth: int, event: Event) -> Json:
        """What an alias stands for."""
        self.count(event, depth, len(value) if isinstance(value, str) else 0)
        if isinstance(value, list):
            return [self.copied(inner, depth + 1, event) for inner in value]
        if isinstance(value, dict):
            return {key: self.copied(inner, depth + 1, event) for key, inner in value.items()}
        return value

    def count(self, event: Event, depth: int, characters: int) -> None:
        """Add one value to what the file stands for."""
        self.size += 8 + characters
        if depth > MOST_DEPTH:
            self.refuse(event, f"more than {MOST_DEPTH} levels")
        if self.size > MOST_SIZE:
            self.refuse(event, f"more than {MOST_SIZE:,} characters of values, with aliases replaced")

    def check_tag(self, event: SequenceStartEvent | MappingStartEvent, own: str) -> None:
        """Refuse a list or a mapping with a tag of something else."""
        if event.tag not in (None, "!", f"{_TAGS}{own}"):
            self.refuse(event, f"tag {one_line(event.tag, 40)} of a {own}; leave it out")

    def refuse(self, event: Event, problem: str) -> NoReturn:
        """Raise the error of a place."""
        mark = event.start_mark
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)  # type: ignore[arg-type] # of Python, not of C


@final
class _Dumper(yaml.SafeDumper):
    """Quotes text that :class:`_Values`, or a reader of YAML 1.1, would read as something else."""


_Dumper.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}
_Dumper.add_implicit_resolver(f"{_TAGS}float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))


def parse_yaml(text: str) -> Json:
    """Parse YAML text into plain values, of at most :data:`MOST_DEPTH` and :data:`MOST_SIZE`.

    Raises:
        yaml.YAMLError: it is not YAML, or holds a key twice, a key that is neither text nor a whole number, a tag that
            is not of YAML's core, or too much. ValueError: a character with a number that does not exist.
    """
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"more than {MOST_BYTES:,} characters")
    return _Values(text).document()


def read_yaml(file: Path, error_kind: type[GarnishError] = OptionError) -> Json:
    """Read a YAML file into plain values, as :func:`parse_yaml`.

    Args:
        file: UTF-8, at most :data:`MOST_BYTES`.
        error_kind: raised, with one line that names the file, if it is missing, not text or not YAML.
    """
    try:
        text = read_regular(file, MOST_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, 100)
        raise error_kind(f"{file}: cannot be read ({reason}); give the path of a YAML file") from None
    try:
        return parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise error_kind(f"{file}{place}: not valid YAML ({one_line(error.problem, 120)}); correct it") from None
    except (yaml.YAMLError, ValueError) as error:
        raise error_kind(f"{file}: not valid YAML ({one_line(error, 120)}); correct it") from None


def write_yaml(plain: object) -> str:
    """Plain values as YAML text, keys in their order; :func:`read_yaml` reads the same values back."""
    written = _dumped(plain, True)
    return written if showable(written, keep="\n") == written else _dumped(plain, False)


def _dumped(plain: object, allow_unicode: bool) -> str:
    return yaml.dump(
        plain, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=120, default_flow_style=None
    )
