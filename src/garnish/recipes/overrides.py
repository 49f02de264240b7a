"""Overrides of a recipe on the command line: ``--dotted.keys value``. Nothing here needs torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from garnish.checking.plain_data import Json
from garnish.errors import OptionError, shown
from garnish.files.strict_yaml import parse_yaml

#: A place in a list; other digits than these are no numbers, or of other scripts.
_PLACE = re.compile("[0-9]{1,9}")
_NUMBERS = re.compile(r"[-+.\deE]+(,[-+.\deE]+)+")


def parse_value(text: str) -> Json:
    """A value of the command line: YAML (``8``, ``1e-4``, ``true``, ``[qkv, fc1]``), ``224,280``, else the text."""
    if _NUMBERS.fullmatch(text):
        text = f"[{text}]"
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, ValueError):
        return text


def split_overrides(tokens: Sequence[str], sections: Sequence[str]) -> tuple[list[str], dict[str, Json]]:
    """Separate overrides such as ``--adapter LoRA --adapter.rank 8 --train.checkpointing`` from a command line.

    Args:
        tokens: the command line.
        sections: first words of the keys to take.

    Returns:
        The other tokens, and dotted key → value; a key without a value is true.

    Raises:
        OptionError: a key with an empty part, or one that is given twice.
    """
    rest: list[str] = []
    found: dict[str, Json] = {}
    left = list(tokens)
    while left:
        token = left.pop(0)
        key, equals, text = token[2:].partition("=")
        parts = key.split(".")
        if not token.startswith("--") or parts[0] not in sections:
            rest.append(token)
            continue
        if not all(parts):
            raise OptionError(f"--{key}: an empty name beside a dot; write e.g. --train.lr 1e-4")
        if not equals:
            text = left.pop(0) if left and not left[0].startswith("--") else "true"
        if key in found:
            raise OptionError(f"--{key} is given twice; give it once (several in one: --adapter LoRA,SSF)")
        found[key] = parse_value(text)
    return rest, found


def set_dotted(plain: dict[str, Json], key: str, value: Json, *, names: Sequence[str] = ()) -> None:
    """Set ``plain[a][b][c]`` for the key ``a.b.c``; missing mappings are created, list entries go by number.

    Args:
        plain: changed in place.
        key: dotted.
        value: what to set.
        names: sections in which text means ``{name: text}``.

    Raises:
        OptionError: the key leads through a value that is neither a mapping nor a list.
    """
    *way, last = key.split(".")
    here: Json = plain
    for depth, part in enumerate(way):
        inner = _entry(here, part, key)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and way[0] in names:
            inner = {"name": inner}
        if not isinstance(inner, dict | list):
            at = ".".join(way[: depth + 1])
            raise OptionError(f"--{key}: {at} is {shown(inner)}, which has no options; set --{at} as a whole")
        _put(here, part, inner, key)
        here = inner
    _put(here, last, value, key)


def _entry(here: Json, part: str, key: str) -> Json:
    return here[_number(here, part, key)] if isinstance(here, list) else here.get(part)


def _put(here: Json, part: str, value: Json, key: str) -> None:
    here[_number(here, part, key) if isinstance(here, list) else part] = value


def _number(here: list[Json], part: str, key: str) -> int:
    if not _PLACE.fullmatch(part) or int(part) >= len(here):
        *_, section = key.split(f".{part}")[0].split(".")
        raise OptionError(
            f"--{key}: {section} is a list; write a number from 0 to {len(here) - 1} in place of {part!r}"
        )
    return int(part)
