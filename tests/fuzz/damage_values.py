"""Damage to the structure of JSON and YAML: each node may be replaced, dropped, doubled, renamed or moved."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from random import Random
from typing import Any

from .odd_values import Raw, odd

#: Keys that are added where a mapping is.
STRANGE_KEYS = (
    *(
        "checkpoint_path",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "cache_dir",
        "pretrained",
        "features_only",
        "name",
    ),
    *(
        "scriptable",
        "in_chans",
        "num_classes",
        "options",
        "base",
        "compare",
        "onto",
        "<<",
        "",
        "a" * 300,
        "\x1b[31mred",
    ),
    *("__class__", "self", "weights", "depth", "block_fn", "norm_layer", "img_size", "path", "sha256", "0", "per_task"),
)
_AGAIN = "\x00again:"


def damaged(draw: Random, tree: Any, *, yaml: bool = False, keys: Sequence[str] = STRANGE_KEYS) -> tuple[Any, str]:
    """A damaged copy of plain values, and words about the damage; one to three places."""
    tree = json.loads(json.dumps(tree))
    told = []
    for _ in range(draw.choice([1, 1, 1, 1, 1, 2, 3])):
        tree, words = _once(draw, tree, yaml, keys)
        told.append(words)
    return tree, "; ".join(told)


def _once(draw: Random, tree: Any, yaml: bool, keys: Sequence[str]) -> tuple[Any, str]:
    places = list(_places(tree))
    if not places:
        value = odd(draw, tree, yaml=yaml)
        return value, f"the whole = {_short(value)}"
    holder, key, path = draw.choice(places)
    former = holder[key]
    how = draw.choice(["replace"] * 6 + ["drop", "again", "rename", "add", "swap"])
    if how == "drop":
        del holder[key]
        return tree, f"{path} dropped"
    if how in ("again", "rename") and isinstance(holder, dict):
        value = odd(draw, former, yaml=yaml)
        name = draw.choice(keys) if how == "rename" else f"{_AGAIN}{key}"
        if how == "rename":
            value = holder.pop(key)
        holder[name] = value
        return tree, f"{path} {how} {name!r} = {_short(value)}"
    if how == "add":
        into = former if isinstance(former, dict) else holder
        if isinstance(into, dict):
            name = draw.choice(keys)
            into[name] = odd(draw, yaml=yaml)
            return tree, f"{path} with {name!r} = {_short(into[name])}"
    if how == "swap":
        other, inner, other_path = draw.choice(places)
        holder[key] = copy.deepcopy(other[inner])
        return tree, f"{path} = that of {other_path}"
    holder[key] = odd(draw, former, yaml=yaml)
    return tree, f"{path} = {_short(holder[key])}"


def _places(tree: Any, path: str = "") -> Any:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree[:50]) if isinstance(tree, list) else ()
    for key, value in entries:
        here = f"{path}.{key}"
        yield tree, key, here
        if len(path) < 200:
            yield from _places(value, here)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:60]}… ({len(text)})"


def dump_json(value: Any) -> str:
    """JSON text, with what JSON does not allow (raw text, NaN, keys that stand twice)."""
    return _dumped(value, ("NaN", "Infinity", "-Infinity"))


def dump_yaml(value: Any) -> str:
    """YAML text in flow style (block style at the top, as people write it)."""
    words = (".nan", ".inf", "-.inf")
    if isinstance(value, dict) and value:
        return "".join(f"{_key(k)}: {_dumped(v, words)}\n" for k, v in value.items())
    return _dumped(value, words) + "\n"


def _dumped(value: Any, words: tuple[str, str, str]) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)}: {_dumped(v, words)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_dumped(v, words) for v in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return words[0] if value != value else words[1] if value > 0 else words[2]
    return json.dumps(value)


def _key(key: Any) -> str:
    return json.dumps(str(key).removeprefix(_AGAIN))
