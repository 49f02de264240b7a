"""Reading a recipe's text: YAML with numbers as people write them, and ``--dotted.keys value`` from the command line.

Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, final

import yaml

from garnish.errors import OptionError, one_line

#: A float of YAML 1.2: YAML 1.1, which PyYAML reads, takes ``1e-3`` for text.
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")  # 010 stays text: 8 to some, 10 to others
_NUMBERS = re.compile(r"[-+.\deE]+(,[-+.\deE]+)+")


@final
class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain numbers and booleans; a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As the base class, but strict."""
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:str" and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# The table is shared with the base class, so it is replaced, not changed.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", re.compile("true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("null", re.compile("~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("merge", re.compile("<<"), "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern.pattern})$"), list(_first))


@final
class _Dumper(yaml.SafeDumper):
    """Quotes text that :class:`_Loader`, or a reader of YAML 1.1, would take for something else."""


_Dumper.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))


def read_yaml(file: Path) -> Any:
    """The plain content of a YAML file.

    Raises:
        OptionError: a file that is missing, is not text or is not YAML; one line that names it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, 100)
        raise OptionError(f"{file}: cannot be read ({reason}); give the path of a YAML file") from None
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise OptionError(f"{file}{place}: not valid YAML ({one_line(error.problem, 120)}); correct it") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OptionError(f"{file}: not valid YAML ({one_line(error, 120)}); correct it") from None


def parse_value(text: str) -> Any:
    """A value of the command line: YAML (``8``, ``1e-4``, ``true``, ``[qkv, fc1]``), ``224,280``, else the text."""
    if _NUMBERS.fullmatch(text):
        text = f"[{text}]"
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError):
        return text


def write_yaml(plain: Any) -> str:
    """Plain content as YAML, keys in their order, that :func:`read_yaml` reads back as it was."""
    text: str = yaml.dump(
        plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )
    return text


def split_overrides(tokens: Sequence[str], sections: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take ``--adapter LoRA --adapter.rank 8 --train.checkpointing`` out of a command line.

    Args:
        tokens: the command line.
        sections: first words of the keys to take.

    Returns:
        The other tokens, and dotted key → value; a key without a value is true.

    Raises:
        OptionError: a key with an empty part.
    """
    rest: list[str] = []
    found: dict[str, Any] = {}
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
        found[key] = parse_value(text)
    return rest, found


def set_dotted(plain: dict[str, Any], key: str, value: Any, *, names: Sequence[str] = ()) -> None:
    """Set ``plain[a][b][c]`` for the key ``a.b.c``; mappings are made on the way, lists are entered by number.

    Args:
        plain: changed in place.
        key: dotted.
        value: what to set.
        names: sections in which text stands for ``{name: text}``.

    Raises:
        OptionError: a way through something that is neither a mapping nor a list.
    """
    *way, last = key.split(".")
    here: Any = plain
    for depth, part in enumerate(way):
        inner = _entry(here, part, key)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and way[0] in names:
            inner = {"name": inner}
        if not isinstance(inner, dict | list):
            at = ".".join(way[: depth + 1])
            shown = one_line(repr(inner), 60)
            raise OptionError(f"--{key}: {at} is {shown}, which has no options; set --{at} as a whole")
        _put(here, part, inner, key)
        here = inner
    _put(here, last, value, key)


def _entry(here: Any, part: str, key: str) -> Any:
    return here[_number(here, part, key)] if isinstance(here, list) else here.get(part)


def _put(here: Any, part: str, value: Any, key: str) -> None:
    here[_number(here, part, key) if isinstance(here, list) else part] = value


def _number(here: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(here):
        *_, section = key.split(f".{part}")[0].split(".")
        raise OptionError(
            f"--{key}: {section} is a list; write a number from 0 to {len(here) - 1} in place of {part!r}"
        )
    return int(part)
