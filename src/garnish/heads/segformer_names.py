"""The names that SegFormer's decoder bears in the checkpoints of others: tables, and the way there and back.

Ours are those of ``SegFormerDecoder``: ``projections.I`` (map I, finest first), ``fuse``, ``norm``, ``classifier``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from garnish.backbones.weights import read_weights
from garnish.checking.finite import not_finite
from garnish.errors import OptionError, WeightsError, suggest

DECODE_HEAD = "decode_head"
#: dialect → part of ours → its name there; ``{i}`` is the map from 0, ``{n}`` the map from 1
DIALECTS: Mapping[str, Mapping[str, str]] = {
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
#: what NVlabs' base class makes and its decoder never runs
_UNUSED = ("conv_seg.weight", "conv_seg.bias")
#: counts steps, which nothing reads; not every converter keeps it
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
    """Our tensor names → ``decode_head.…`` in a dialect of :data:`DIALECTS`.

    Raises:
        OptionError: no such dialect, or a tensor that SegFormer's own decoder does not have.
    """
    if dialect not in DIALECTS:
        raise OptionError(f"unknown SegFormer dialect {dialect!r}{suggest(dialect, DIALECTS)}")
    table, names = DIALECTS[dialect], {}
    for name in ours:
        part, rest = name.split(".", 1)
        if part not in table:
            raise OptionError(f"SegFormerHead: the published decoder has no {name}; use norm=False")
        number, leaf = rest.split(".") if part == "projections" else ("0", rest)
        names[name] = f"{DECODE_HEAD}.{table[part].format(i=number, n=int(number) + 1)}.{leaf}"
    return names


def detect_decoder(names: Iterable[str]) -> str:
    """The dialect of some ``decode_head.…`` names; transformers 5's where no other is known by its projections."""
    for dialect, mark in (("nvlabs", ".linear_c1."), ("transformers4", ".linear_c.")):
        if any(mark in name for name in names):
            return dialect
    return "transformers5"


def read_decoder(source: str) -> dict[str, Tensor]:
    """The decoder of a finished SegFormer, by our names.

    Args:
        source: as for :func:`garnish.backbones.weights.read_weights`.

    Raises:
        WeightsError: weights that cannot be read or are not finite, or hold no whole decoder in a known dialect.
    """
    tensors, _ = read_weights(source)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        before, here, rest = name.partition(f"{DECODE_HEAD}.")
        if here and (not before or before.endswith(".")) and rest not in _UNUSED:
            found[here + rest] = tensor
    if not found:
        raise WeightsError(
            f"{source}: holds no {DECODE_HEAD}, so it is an encoder alone; give the weights of a finished SegFormer"
        )
    names = names_in(dialect := detect_decoder(list(found)), _OURS)
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
        raise WeightsError(f"{source}: {odd}; fetch or train them anew")
    return {ours: found[name] for ours, name in names.items() if name in found}


def write_decoder(state: Mapping[str, Tensor], dialect: str) -> dict[str, Tensor]:
    """``decode_head.…`` → tensor of a decoder's ``state_dict()``; raises as :func:`names_in`."""
    return {theirs: state[ours].detach().contiguous() for ours, theirs in names_in(dialect, state).items()}
