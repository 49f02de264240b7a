"""SegFormer's decoder as transformers names it: our ``SegFormerHead`` in ``SegformerForSemanticSegmentation``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from garnish.errors import BundleError, OptionError
from garnish.heads.segformer import SegFormerDecoder

DECODE_HEAD = "decode_head"
#: dialect → name of the projection of map ``{i}``, finest first
_PROJECTIONS = {"transformers4": "linear_c.{i}.proj", "transformers5": "linear_projections.{i}.proj"}
_NAMES = {"fuse": "linear_fuse", "norm": "batch_norm", "classifier": "classifier"}


def decode_head_tensors(head: nn.Module, dialect: str, where: str) -> dict[str, Tensor]:
    """``decode_head.…`` → tensor, running statistics included.

    Raises:
        OptionError: another decoder than SegFormer's own.
    """
    if not isinstance(head, SegFormerDecoder):
        raise OptionError(f"{where}: has another head than SegFormerHead, which transformers does not know")
    state = head.state_dict()
    return {theirs: state[ours] for ours, theirs in _names(state, dialect).items()}


def fill_decode_head(head: nn.Module, found: Mapping[str, Tensor], where: str) -> None:
    """Put ``decode_head.…`` tensors of either dialect into our decoder, exactly one to each of its own.

    Raises:
        BundleError: another decoder, missing or unused tensors, or other shapes; nothing is put in then.
    """
    if not isinstance(head, SegFormerDecoder):
        raise BundleError(
            f"{where}: holds a {DECODE_HEAD}, which only a SegFormerHead can take; give head=SegFormerHead()"
        )
    state = head.state_dict()
    dialect = "transformers4" if any(".linear_c." in name for name in found) else "transformers5"
    names = _names(state, dialect)
    missing = [theirs for theirs in names.values() if theirs not in found]
    unused = sorted(set(found) - set(names.values()))
    if missing or unused:
        kind, first = ("lacks", missing[0]) if missing else ("holds the unused", unused[0])
        raise BundleError(f"{where}: {kind} {first}; the decoder is another or the file is damaged")
    for ours, theirs in names.items():
        if found[theirs].shape != state[ours].shape:
            raise BundleError(
                f"{where}: {theirs} is {tuple(found[theirs].shape)}, the head's {tuple(state[ours].shape)}; "
                "give the head's channels and the task's classes as in the file"
            )
    with torch.no_grad():
        for ours, theirs in names.items():
            state[ours].copy_(found[theirs])


def _names(state: Mapping[str, Tensor], dialect: str) -> dict[str, str]:
    names = {}
    for ours in state:
        part, rest = ours.split(".", 1)
        if part != "projections" and part not in _NAMES:
            raise OptionError(f"SegFormerHead: transformers' decoder has no {ours}; use norm=False")
        if part == "projections":
            number, leaf = rest.split(".")
            names[ours] = f"{DECODE_HEAD}.{_PROJECTIONS[dialect].format(i=number)}.{leaf}"
        else:
            names[ours] = f"{DECODE_HEAD}.{_NAMES[part]}.{rest}"
    return names
