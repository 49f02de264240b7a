"""Tensor names of SegFormer's decoder in NVlabs' and transformers' checkpoints: tables, reading and writing.

Ours are those of ``SegFormerDecoder``: ``projections.I`` (map I, finest first), ``fuse``, ``norm``, ``classifier``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from garnish.backbones.weights import read_weights
from garnish.checking.finite import not_finite
from garnish.errors import OptionError, WeightsError, shown, suggest

DECODE_HEAD = "decode_head"
#: dialect → our name of a part → its name there; ``{i}`` is the map's number from 0, ``{n}`` from 1
DECODER_DIALECTS: Mapping[str, Mapping[str, str]] = {
    "nvlabs": {
        "projections": "linear_c{n}.proj",
        "fuse": "linear_fuse.conv",
        "norm": "linear_fuse.bn",
        "classifier": "linear_pred",
    },
    "transformers4": {
        "projections": "linear_c.{i}.proj",
        "fuse": "linear_fuse",
        "norm": "batch_norm",
        "classifier": "classifier",
    },
    "transformers5": {
        "projections": "linear_projections.{i}.proj",
        "fuse": "linear_fuse",
        "norm": "batch_norm",
        "classifier": "classifier",
    },
}
#: tensors of NVlabs' base class that its decoder does not use
_UNUSED = ("conv_seg.weight", "conv_seg.bias")
#: batch norm's step counter, which nothing uses and some converters drop
COUNTER = "norm.num_batches_tracked"
_MAPS = 4
_OURS = (
    *(f"projections.{i}.{leaf}" for i in range(_MAPS) for leaf in ("weight", "bias")),
    "fuse.weight",
    *(f"norm.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")),
    COUNTER,
    *("classifier.weight", "classifier.bias"),
)


def names_in(dialect: str, ours: Iterable[str]) -> dict[str, str]:
    """Our tensor names → ``decode_head.…`` in a dialect of :data:`DECODER_DIALECTS`.

    Raises:
        OptionError: no such dialect, or a tensor that the published decoder does not have.
    """
    if dialect not in DECODER_DIALECTS:
        raise OptionError(f"unknown SegFormer dialect {shown(dialect)}{suggest(dialect, DECODER_DIALECTS)}")
    table, names = DECODER_DIALECTS[dialect], {}
    for name in ours:
        part, rest = name.split(".", 1)
        if part not in table:
            raise OptionError(f"SegFormerHead: the published decoder has no {name}; use norm=False")
        number, leaf = rest.split(".") if part == "projections" else ("0", rest)
        names[name] = f"{DECODE_HEAD}.{table[part].format(i=number, n=int(number) + 1)}.{leaf}"
    return names


def decoder_dialect(names: Iterable[str]) -> str:
    """The dialect of some ``decode_head.…`` names, told by its projections; transformers 5's if no other matches."""
    for dialect, mark in (("nvlabs", ".linear_c1."), ("transformers4", ".linear_c.")):
        if any(mark in name for name in names):
            return dialect
    return "transformers5"


def read_decoder(source: str) -> dict[str, Tensor]:
    """Our name → tensor of the decoder of a finished SegFormer.

    Args:
        source: as for :func:`garnish.backbones.weights.read_weights`.

    Raises:
        WeightsError: weights that cannot be read, are not finite, or hold no complete decoder in a known dialect.
    """
    tensors, _ = read_weights(source)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        before, here, rest = name.partition(f"{DECODE_HEAD}.")
        if here and (not before or before.endswith(".")) and rest not in _UNUSED:
            found[here + rest] = tensor
    if not found:
        raise WeightsError(
            f"{source}: holds no {DECODE_HEAD}, only an encoder; give the weights of a finished SegFormer"
        )
    names = names_in(dialect := decoder_dialect(list(found)), _OURS)
    missing = [n for ours, n in names.items() if n not in found and ours != COUNTER]
    unexpected = [n for n in found if n not in set(names.values())]
    if missing or unexpected:
        kind, some = ("lacks", missing) if missing else ("holds the unknown", unexpected)
        more = f" and {len(some) - 1} more" if len(some) > 1 else ""
        raise WeightsError(
            f"{source}: its {DECODE_HEAD} {kind} {some[0]}{more} ({dialect} names); "
            "only SegFormer's own decoder can be read, in NVlabs' or transformers' names"
        )
    if odd := not_finite({name: found[name] for name in names.values() if name in found}):
        raise WeightsError(f"{source}: {odd}; fetch or train them again")
    return {ours: found[name] for ours, name in names.items() if name in found}


def write_decoder(state: Mapping[str, Tensor], dialect: str) -> dict[str, Tensor]:
    """A decoder's ``state_dict()`` under the ``decode_head.…`` names of a dialect; raises as :func:`names_in`."""
    return {theirs: state[ours].detach().contiguous() for ours, theirs in names_in(dialect, state).items()}
