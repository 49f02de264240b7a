"""Names of MiT's tensors in NVlabs' and transformers' checkpoints: tables, and conversion to and from our names.

A layer's canonical name is ``stages.S.ROLE`` or ``stages.S.blocks.B.ROLE``. A table gives, by role, the layer's name
in one dialect, with ``{s}`` the stage from 0, ``{n}`` the stage from 1 and ``{b}`` the block. Where a dialect keeps
several layers for one of ours (keys and values), their rows are stacked in the order given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from garnish.backbones.name_prefixes import check_one, prefixes_of
from garnish.errors import OptionError, WeightsError, shown, suggest

#: Parts of whole models that a file may hold beside the encoder.
_OTHER_PARTS = frozenset({"decode_head", "auxiliary_head", "classifier", "head"})
_CANONICAL = re.compile(r"stages\.(\d+)(?:\.blocks\.(\d+))?\.(.+)")

#: Role → the layer's name in NVlabs' code, in transformers 4 and in transformers 5 (several separated by spaces);
#: names in blocks are relative to the block.
_OUTSIDE_BLOCKS = {
    "enter.proj": ("patch_embed{n}.proj", "encoder.patch_embeddings.{s}.proj", "stages.{s}.patch_embeddings.proj"),
    "enter.norm": (
        "patch_embed{n}.norm",
        "encoder.patch_embeddings.{s}.layer_norm",
        "stages.{s}.patch_embeddings.layer_norm",
    ),
    "leave": ("norm{n}", "encoder.layer_norm.{s}", "stages.{s}.layer_norm"),
}
_BLOCK = ("block{n}.{b}.", "encoder.block.{s}.{b}.", "stages.{s}.blocks.{b}.")
_IN_BLOCKS = {
    "attn.norm": ("norm1", "layer_norm_1", "layernorm_before"),
    "attn.q": ("attn.q", "attention.self.query", "attention.q_proj"),
    "attn.kv": ("attn.kv", "attention.self.key attention.self.value", "attention.k_proj attention.v_proj"),
    "attn.sr": ("attn.sr", "attention.self.sr", "attention.sequence_reduction.sequence_reduction"),
    "attn.sr_norm": ("attn.norm", "attention.self.layer_norm", "attention.sequence_reduction.layer_norm"),
    "attn.proj": ("attn.proj", "attention.output.dense", "attention.o_proj"),
    "mlp.norm": ("norm2", "layer_norm_2", "layernorm_after"),
    "mlp.fc1": ("mlp.fc1", "mlp.dense1", "mlp.fc1"),
    "mlp.dw": ("mlp.dwconv.dwconv", "mlp.dwconv.dwconv", "mlp.dwconv.dwconv"),
    "mlp.fc2": ("mlp.fc2", "mlp.dense2", "mlp.fc2"),
}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one library names MiT's layers, and the epsilons of its norms.

    Attributes:
        name: its name here.
        layers: role → the layer's name or names.
        prefix: prefix of the names in a whole model of that library.
        norm_eps: epsilon of the norms of blocks and stages.
        embed_norm_eps: epsilon of the norms after the patch embeddings and the spatial reductions.
    """

    name: str
    layers: Mapping[str, tuple[str, ...]]
    prefix: str
    norm_eps: float
    embed_norm_eps: float

    def names_of(self, canonical: str) -> tuple[str, ...]:
        """The names in this dialect, without prefix, of the layer or tensor with the canonical name ``canonical``."""
        stage, block, rest = _parse(canonical)
        role, leaf = (rest, "") if rest in self.layers else rest.rpartition(".")[::2]
        place = {"s": stage, "n": stage + 1, "b": block}
        return tuple(name.format(**place) + (f".{leaf}" if leaf else "") for name in self.layers[role])


def _layers(number: int) -> dict[str, tuple[str, ...]]:
    """Role → the layer's name or names, from one column of the tables."""
    outside = {role: (names[number],) for role, names in _OUTSIDE_BLOCKS.items()}
    inside = {role: names[number].split() for role, names in _IN_BLOCKS.items()}
    return outside | {role: tuple(_BLOCK[number] + name for name in names) for role, names in inside.items()}


GARNISH = Dialect(
    name="garnish",
    layers={
        **{role: ("stages.{s}." + role,) for role in _OUTSIDE_BLOCKS},
        **{role: ("stages.{s}.blocks.{b}." + role,) for role in _IN_BLOCKS},
    },
    prefix="",
    norm_eps=1e-6,
    embed_norm_eps=1e-6,
)

#: NVlabs' code gives its epsilon of 1e-6 to the norms of blocks and stages only; the others keep torch's 1e-5.
NVLABS = Dialect(name="nvlabs", layers=_layers(0), prefix="backbone.", norm_eps=1e-6, embed_norm_eps=1e-5)

#: transformers up to 5.8, and the files on the Hub.
TRANSFORMERS_4 = Dialect(
    name="transformers4", layers=_layers(1), prefix="segformer.", norm_eps=1e-5, embed_norm_eps=1e-5
)

#: transformers from 5.12 on, in memory.
TRANSFORMERS_5 = Dialect(
    name="transformers5", layers=_layers(2), prefix="segformer.", norm_eps=1e-5, embed_norm_eps=1e-5
)

ENCODER_DIALECTS = {dialect.name: dialect for dialect in (GARNISH, NVLABS, TRANSFORMERS_4, TRANSFORMERS_5)}


def encoder_dialect(tensors: Mapping[str, Tensor], where: str) -> tuple[Dialect, str]:
    """The dialect of some tensor names and their prefix (``segformer.``, ``backbone.``, ``module.``, none).

    Raises:
        WeightsError: no dialect's first patch embedding is found, or several of one (a student's and a teacher's).
    """
    for dialect in ENCODER_DIALECTS.values():
        (anchor,) = dialect.names_of("stages.0.enter.proj.weight")
        prefixes = prefixes_of(tensors, (anchor,))
        check_one(prefixes, where)
        if prefixes:
            return dialect, prefixes[0]
    found = ", ".join(list(tensors)[:3])
    raise WeightsError(
        f"{where}: no MiT encoder in any known dialect ({', '.join(ENCODER_DIALECTS)}); "
        f"its first names: {found or 'none'}; give weights of a SegFormer encoder"
    )


def read_dialect(tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], where: str) -> dict[str, Tensor]:
    """Canonical name → tensor, from a file in any dialect; decode heads and classifiers are left out.

    Args:
        tensors: what the file holds.
        wanted: canonical name → shape of every tensor of the encoder.
        where: the file, for messages.

    Raises:
        WeightsError: an unknown dialect, or tensors that are missing, unexpected or of other shapes (names a few).
    """
    dialect, prefix = encoder_dialect(tensors, where)
    sources = {name: [prefix + part for part in dialect.names_of(name)] for name in wanted}
    expected = {part for parts in sources.values() for part in parts}
    missing = [part for parts in sources.values() for part in parts if part not in tensors]
    unexpected = [n for n in tensors if n not in expected and _OTHER_PARTS.isdisjoint(n.split("."))]
    remedy = f"({dialect.name} names); is it of another size or incomplete?"
    if missing or unexpected:
        said = [
            f"{len(names)} {kind}: {_few(names)}"
            for kind, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise WeightsError(f"{where}: does not fit, {'; '.join(said)} {remedy}")
    found = {
        name: torch.cat([tensors[p] for p in parts]) if len(parts) > 1 else tensors[parts[0]]
        for name, parts in sources.items()
    }
    wrong = [f"{n} is {tuple(found[n].shape)}, not {tuple(wanted[n])}" for n in wanted if found[n].shape != wanted[n]]
    if wrong:
        raise WeightsError(f"{where}: {len(wrong)} tensors of another shape: {_few(wrong, 2)} {remedy}")
    return found


def write(tensors: Mapping[str, Tensor], dialect: str, *, prefix: str | None = None) -> dict[str, Tensor]:
    """The tensors of an encoder under the names of ``dialect``.

    Args:
        tensors: canonical name → tensor (:meth:`Backbone.frozen_tensors`).
        dialect: one of :data:`ENCODER_DIALECTS`.
        prefix: prefix of each name; None: that of a whole model of that library.

    Raises:
        OptionError: no such dialect.
    """
    if dialect not in ENCODER_DIALECTS:
        raise OptionError(f"unknown MiT dialect {shown(dialect)}{suggest(dialect, ENCODER_DIALECTS)}")
    table = ENCODER_DIALECTS[dialect]
    before = table.prefix if prefix is None else prefix
    out: dict[str, Tensor] = {}
    for canonical, tensor in tensors.items():
        names = table.names_of(canonical)
        for name, part in zip(names, tensor.detach().chunk(len(names)), strict=True):
            out[before + name] = part.contiguous()
    return out


def _parse(canonical: str) -> tuple[int, int, str]:
    match = _CANONICAL.fullmatch(canonical)
    assert match is not None, canonical
    stage, block, rest = match.groups()
    return int(stage), int(block or 0), rest


def _few(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
