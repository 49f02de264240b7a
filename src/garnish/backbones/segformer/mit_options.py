"""The architectures of MiT: the sizes that have names, and the options for others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, final

from garnish.backbones.architecture import Epsilon, Rate, Ratio, read_architecture
from garnish.backbones.segformer.finished_names import FINISHED
from garnish.checking.plain_data import Within
from garnish.errors import OptionError, shown, suggest

STRIDES = (4, 8, 16, 32)
_WIDE = (64, 128, 320, 512)
#: name → (embed_dims, depths); table 6 of the paper
SIZES = {
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": (_WIDE, (2, 2, 2, 2)),
    "mit_b2": (_WIDE, (3, 4, 6, 3)),
    "mit_b3": (_WIDE, (3, 4, 18, 3)),
    "mit_b4": (_WIDE, (3, 8, 27, 3)),
    "mit_b5": (_WIDE, (3, 6, 40, 3)),
}
#: name → Hub id of its published weights: the encoder alone, or with the decoder of a finished SegFormer
PUBLISHED = {name: f"nvidia/{name.replace('_', '-')}" for name in SIZES} | FINISHED
SIZES |= {name: SIZES[name.replace("segformer", "mit")] for name in FINISHED}


def _stages_within(most: int) -> Within:
    told = f"{len(STRIDES)} positive integers of at most {most:,}"
    return Within(told, lambda entries: min(entries) >= 1 and max(entries) <= most)


_Four = tuple[int, int, int, int]


@final
@dataclass(frozen=True, kw_only=True)
class MiTOptions:
    """The architecture of one MiT; each sequence has one entry per stage, of which there are four.

    Attributes:
        embed_dims: channels.
        depths: number of blocks.
        num_heads: number of attention heads.
        sr_ratios: spatial reduction of keys and values: side of the patches that are reduced to one token.
        mlp_ratio: hidden width of the Mix-FFN, divided by the stage's channels.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.
        norm_eps: epsilon of the norms of blocks and stages; None: that of the weights' dialect.
        embed_norm_eps: epsilon of the norms after patch embeddings and reductions; None: ``norm_eps`` if that
            is given, else that of the weights' dialect.
    """

    embed_dims: Annotated[_Four, _stages_within(16_384)]
    depths: Annotated[_Four, _stages_within(64)]
    num_heads: Annotated[_Four, _stages_within(1024)] = (1, 2, 5, 8)
    sr_ratios: Annotated[_Four, _stages_within(64)] = (8, 4, 2, 1)
    mlp_ratio: Ratio = 4.0
    drop_path: Rate = 0.1
    norm_eps: Epsilon | None = None
    embed_norm_eps: Epsilon | None = None


def read_mit(name: str, options: Mapping[str, object]) -> MiTOptions:
    """The architecture of ``name`` with these options; raises OptionError for what is unknown or does not fit."""
    if name not in SIZES:
        raise OptionError(f"unknown MiT {shown(name)}{suggest(name, SIZES)}")
    sizes = dict(zip(("embed_dims", "depths"), SIZES[name], strict=True))
    arch = read_architecture(name, sizes | dict(options), MiTOptions)
    for channels, heads in zip(arch.embed_dims, arch.num_heads, strict=True):
        if channels % heads:
            raise OptionError(
                f"{name}: embed_dims {channels} is not a multiple of its num_heads {heads}; change either"
            )
    return arch
