"""Strict YAML: numbers and booleans as in YAML 1.2, and no duplicate keys. Nothing here needs torch."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import final

import yaml

from garnish.errors import GarnishError, OptionError, one_line

#: A float of YAML 1.2: in YAML 1.1, which PyYAML reads, ``1e-3`` is text.
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")  # 010 stays text: 8 to some, 10 to others


@final
class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain numbers and booleans; duplicate keys are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """As the base class, but refuse duplicate keys."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} occurs twice", key.start_mark)
            seen.add((key.tag, key.value))
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
    """Quotes text that :class:`_Loader`, or a reader of YAML 1.1, would read as something else."""


_Dumper.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))


def parse_yaml(text: str) -> object:
    """Parse YAML text into plain values.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is not YAML, or holds a key twice.
    """
    return yaml.load(text, _Loader)


def read_yaml(file: Path, error_kind: type[GarnishError] = OptionError) -> object:
    """Read a YAML file into plain values.

    Args:
        file: UTF-8.
        error_kind: raised, with one line that names the file, if it is missing, not text or not YAML.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, 100)
        raise error_kind(f"{file}: cannot be read ({reason}); give the path of a YAML file") from None
    try:
        return parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise error_kind(f"{file}{place}: not valid YAML ({one_line(error.problem, 120)}); correct it") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise error_kind(f"{file}: not valid YAML ({one_line(error, 120)}); correct it") from None


def write_yaml(plain: object) -> str:
    """Plain values as YAML text, keys in their order; :func:`read_yaml` reads the same values back."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
