"""Giving tensors in transformers' names timm's names: tables of patterns, and layers that timm has as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from garnish.backbones.name_prefixes import prefixes_of

#: pattern of the beginning of a name, up to a dot or the end → what stands there instead; None: the tensor is left out
Rules = Mapping[str, "str | Callable[[re.Match[str]], str] | None"]


class Stacked(NamedTuple):
    """Layers whose rows stand one above another in one layer of timm's.

    Attributes:
        parts: last parts of the layers' names, in timm's order.
        whole: that of timm's layer.
    """

    parts: tuple[str, ...]
    whole: str


#: of nearly all: queries, keys and values, as :func:`attention` names them
QKV = Stacked(("q", "k", "v"), "qkv")


def attention(block: str, named: str, ours: str) -> dict[str, str]:
    """Rules of an attention's layers.

    Args:
        block: pattern of a block, with its numbers in groups.
        named: pattern of what stands before ``query``, ``key`` and ``value`` in transformers 4.
        ours: the block in timm's names, with references to the groups.
    """
    layers = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    rules = {f"{block}\\.(?:{named}\\.{old}|attention\\.{new})": f"{ours}.attn.{old[0]}" for old, new in layers.items()}
    return {**rules, f"{block}\\.attention\\.(?:output\\.dense|o_proj)": f"{ours}.attn.proj"}


def part_of(held: Mapping[str, Tensor], anchor: str) -> dict[str, Tensor] | None:
    """The tensors of the one model in which a name is found, without its prefix; None: in none, or in several.

    Args:
        held: tensors of a file or model, which may be of a whole that the model is a part of.
        anchor: a name that each such model has.
    """
    prefixes = prefixes_of(held, (anchor,))
    if len(prefixes) != 1:
        return None
    prefix = prefixes[0]
    return {name.removeprefix(prefix): tensor for name, tensor in held.items() if name.startswith(prefix)}


def renamed(part: Mapping[str, Tensor], rules: Rules, stacks: Sequence[Stacked] = ()) -> dict[str, Tensor]:
    """Tensors by timm's names; those that no rule is of keep theirs, so that what does not fit is told by it.

    Args:
        part: as :func:`part_of` gives them.
        rules: the first that matches counts.
        stacks: applied behind the rules, where all parts of a layer are there.
    """
    compiled = [(re.compile(f"{pattern}(?=\\.|$)"), new) for pattern, new in rules.items()]
    found: dict[str, Tensor] = {}
    for name, tensor in part.items():
        for pattern, new in compiled:
            if (match := pattern.match(name)) is not None:
                if new is not None:
                    found[(match.expand(new) if isinstance(new, str) else new(match)) + name[match.end() :]] = tensor
                break
        else:
            found[name] = tensor
    for parts, whole in stacks:
        _stack(found, parts, whole)
    return found


def _stack(found: dict[str, Tensor], parts: Sequence[str], whole: str) -> None:
    """Replace layers by the one in which their rows stand one above another."""
    for name in list(found):
        layer, _, leaf = name.rpartition(".")
        owner, _, last = layer.rpartition(".")
        names = [f"{owner}.{part}.{leaf}" for part in parts]
        if last == parts[0] and all(one in found for one in names):
            tensors = [found.pop(one) for one in names]
            found[f"{owner}.{whole}.{leaf}"] = torch.cat(tensors) if _alike(tensors) else tensors[0]


def _alike(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors can be stacked; those of strangers may have any shape, which is told of the first."""
    return len({tensor.shape[1:] for tensor in tensors}) == 1 and all(tensor.ndim for tensor in tensors)
