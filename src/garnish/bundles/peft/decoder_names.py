"""The tensors of ``SegFormerHead`` under the names of transformers' ``SegformerForSemanticSegmentation``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from garnish.bundles.peft.tensor_file import can_fill
from garnish.errors import BundleError, OptionError, shown
from garnish.files.safetensors_header import TensorFacts
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


def decode_head_names(head: nn.Module, found: Mapping[str, TensorFacts], where: str) -> dict[str, str]:
    """Our tensor → the one of a ``decode_head.…`` in either dialect, which must match one to one.

    Args:
        head: a decoder, of any device.
        found: name in the file → type and shape.
        where: the file, for messages.

    Raises:
        BundleError: another decoder, missing or unused tensors, or other shapes or kinds of number.
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
        kind, first = ("lacks", missing[0]) if missing else ("holds the unused", shown(unused[0], 200))
        raise BundleError(f"{where}: {kind} {first}; the decoder is another or the file is damaged")
    for ours, theirs in names.items():
        if not can_fill(found[theirs], state[ours]):
            raise BundleError(
                f"{where}: {theirs} is {found[theirs].dtype} {found[theirs].shape}, the head's "
                f"{tuple(state[ours].shape)}; give the head's channels and the task's classes as in the file"
            )
    return names
