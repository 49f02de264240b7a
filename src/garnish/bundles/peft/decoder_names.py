"""The tensors of ``SegFormerHead`` under the names of transformers' ``SegformerForSemanticSegmentation``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from garnish.errors import BundleError, OptionError
from garnish.heads.segformer import SegFormerDecoder
from garnish.heads.segformer_names import DECODE_HEAD, decoder_dialect, names_in


def decode_head_tensors(head: nn.Module, dialect: str, where: str) -> dict[str, Tensor]:
    """A decoder's tensors, running statistics included, by their names ``decode_head.…``.

    Raises:
        OptionError: a decoder other than SegFormer's.
    """
    if not isinstance(head, SegFormerDecoder):
        raise OptionError(f"{where}: has another head than SegFormerHead, which transformers does not know")
    state = head.state_dict()
    return {theirs: state[ours] for ours, theirs in names_in(dialect, state).items()}


def fill_decode_head(head: nn.Module, found: Mapping[str, Tensor], where: str) -> None:
    """Copy ``decode_head.…`` tensors of either dialect into our decoder, which must match one to one.

    Raises:
        BundleError: another decoder, missing or unused tensors, or other shapes; nothing is copied then.
    """
    if not isinstance(head, SegFormerDecoder):
        raise BundleError(
            f"{where}: holds a {DECODE_HEAD}, which only a SegFormerHead can take; give head=SegFormerHead()"
        )
    state = head.state_dict()
    names = names_in(decoder_dialect(list(found)), state)
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
