"""Names of our layers in the models that PEFT wraps: those of timm, and of transformers 4.57 and 5.

A table maps a layer's place and role to its module name, with ``{s}`` the stage, ``{m}`` the stage before it,
``{b}`` the block of the stage and ``{n}`` the block of the whole trunk, all from 0. If a dialect has several
layers for one of ours (query, key and value), their rows are those of our layer in the order given.

transformers renamed the modules of ViT, Swin and SegFormer between 5.8 and 5.12, those of DINOv2 later; files on the
Hub keep the names of 4.57 for weights, but an adapter's file has the names that its model had in memory.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from torch import nn

from garnish.backbones.mit import MiT
from garnish.backbones.plain_blocks import PlainStem
from garnish.backbones.segformer import dialects
from garnish.backbones.swin import Swin
from garnish.backbones.vit import ViT
from garnish.engine.blocks import bare
from garnish.engine.trunk import Trunk
from garnish.errors import BundleError, OptionError, one_line, shown, suggest

#: The naming schemes of modules that a PEFT folder can use.
DIALECTS = ("timm", "transformers4", "transformers5")

_CANONICAL = re.compile(r"stages\.(\d+)(?:\.blocks\.(\d+))?\.(.+)")
_PATCHES = {"stem.patch_embed.proj": ("embeddings.patch_embeddings.projection",)}


def _of(at: str, *leaves: str) -> tuple[str, ...]:
    return tuple(at + leaf for leaf in leaves)


@dataclass(frozen=True, kw_only=True)
class FamilyNames:
    """Module names of one family in transformers.

    Attributes:
        trunk: name of the trunk inside whole models of the family (``vit`` in ``ViTForImageClassification``).
        v4: place and role → module name or names in transformers 4.57.
        v5: the same in transformers 5.
    """

    trunk: str
    v4: Mapping[str, tuple[str, ...]]
    v5: Mapping[str, tuple[str, ...]]


def _v4(at: str, attention: str) -> dict[str, tuple[str, ...]]:
    """A block's layers as ViT and Swin have them in transformers 4.57, and the patch embedding."""
    return {
        **_PATCHES,
        "attn.qkv": _of(f"{at}attention.{attention}.", "query", "key", "value"),
        "attn.proj": _of(at, "attention.output.dense"),
        "mlp.fc1": _of(at, "intermediate.dense"),
        "mlp.fc2": _of(at, "output.dense"),
    }


def _v5(at: str) -> dict[str, tuple[str, ...]]:
    """As :func:`_v4`, in transformers 5."""
    return {
        **_PATCHES,
        "attn.qkv": _of(f"{at}attention.", "q_proj", "k_proj", "v_proj"),
        "attn.proj": _of(at, "attention.o_proj"),
        "mlp.fc1": _of(at, "mlp.fc1"),
        "mlp.fc2": _of(at, "mlp.fc2"),
    }


_LAYER = "encoder.layer.{n}."
VIT = FamilyNames(trunk="vit", v4=_v4(_LAYER, "attention"), v5=_v5("layers.{n}."))

_PLAIN_MLP = {"mlp.fc1": _of(_LAYER, "mlp.fc1"), "mlp.fc2": _of(_LAYER, "mlp.fc2")}
DINOV2 = FamilyNames(trunk="dinov2", v4=_v4(_LAYER, "attention") | _PLAIN_MLP, v5=_v5(_LAYER))
#: DINOv2 giant, whose MLP is gated.
DINOV2_GATED = FamilyNames(
    trunk="dinov2",
    v4=_v4(_LAYER, "attention") | {"mlp.fc1": _of(_LAYER, "mlp.weights_in"), "mlp.fc2": _of(_LAYER, "mlp.weights_out")},
    v5=_v5(_LAYER) | {"mlp.fc1": _of(_LAYER, "mlp.gate_proj", "mlp.up_proj"), "mlp.fc2": _of(_LAYER, "mlp.down_proj")},
)

_BLOCK = "encoder.layers.{s}.blocks.{b}."
_MERGING = {"enter.reduction": ("encoder.layers.{m}.downsample.reduction",)}
SWIN = FamilyNames(trunk="swin", v4=_v4(_BLOCK, "self") | _MERGING, v5=_v5(_BLOCK) | _MERGING)

SEGFORMER = FamilyNames(trunk="segformer", v4=dialects.TRANSFORMERS_4.layers, v5=dialects.TRANSFORMERS_5.layers)


def table_of(backbone: Trunk) -> FamilyNames | None:
    """The transformers family that computes the same as this trunk; None if there is none."""
    if isinstance(backbone, MiT):
        return SEGFORMER
    if isinstance(backbone, Swin):
        return SWIN
    if not isinstance(backbone, ViT):
        return None
    stem = cast(PlainStem, backbone.stem)
    if stem.cls_token is None or not isinstance(stem.norm_pre, nn.Identity):
        return None  # SigLIP's and CLIP's trunks
    block = backbone.stages[0].blocks[0]
    branch = bare(bare(block["mlp"]).branch)
    mlp = branch.layer
    plain_mlp = bare(mlp.fc1).out_features == bare(mlp.fc2).in_features
    if isinstance(branch.scale, nn.Identity):
        return VIT if plain_mlp and stem.reg_token is None and stem.tokens_have_positions else None
    if stem.reg_token is None and not stem.tokens_have_positions:
        return None  # DeiT III
    return DINOV2 if plain_mlp else DINOV2_GATED


def dialects_of(backbone: Trunk) -> tuple[str, ...]:
    """The dialects with names for this trunk."""
    timm = () if isinstance(backbone, MiT) else ("timm",)
    return timm + (() if table_of(backbone) is None else DIALECTS[1:])


def module_names(backbone: Trunk, dialect: str) -> dict[str, tuple[str, ...]]:
    """Site → module name or names, for every layer that the dialect has.

    Raises:
        OptionError: an unknown dialect, or one without names for this trunk.
    """
    if dialect not in DIALECTS:
        raise OptionError(f"unknown dialect {shown(dialect)}{suggest(dialect, DIALECTS)}")
    known = dialects_of(backbone)
    if dialect not in known:
        remedy = (
            f"give dialect= (--dialect) {' or '.join(known)}" if known else "PEFT's format has none for this family"
        )
        raise OptionError(f"dialect: {backbone.name} has no names in {dialect!r}; {remedy}")
    if dialect == "timm":
        sources = {name: backbone.source_names.get(f"{name}.weight") for name in _layers(backbone)}
        return {name: (source.removesuffix(".weight"),) for name, source in sources.items() if source is not None}
    table = table_of(backbone)
    assert table is not None
    return dict(_filled(backbone, table.v4 if dialect == "transformers4" else table.v5))


def _layers(backbone: Trunk) -> list[str]:
    return [site.name for site in backbone.sites() if site.kind == "layer"]


def _filled(backbone: Trunk, layers: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    before = [0]
    for stage in backbone.stages:
        before.append(before[-1] + len(stage.blocks))
    for name in _layers(backbone):
        match = _CANONICAL.fullmatch(name)
        number, block, role = match.groups() if match is not None else ("0", None, name)
        s, b = int(number), int(block or 0)
        if role in layers:
            yield name, tuple(part.format(s=s, m=s - 1, b=b, n=before[s] + b) for part in layers[role])


@dataclass(frozen=True, kw_only=True)
class RowsOfLayer:
    """The rows that a module's adapter updates: part ``part`` of ``parts`` of the layer at ``site``."""

    site: str
    part: int
    parts: int


def locate(backbone: Trunk, modules: Collection[str], where: str) -> tuple[str, str, dict[str, RowsOfLayer]]:
    """The dialect of some module names, their prefix before the trunk's names, and the rows that each updates.

    Raises:
        BundleError: names that no dialect has for this trunk, or with different prefixes.
    """
    best: tuple[str, str, dict[str, RowsOfLayer]] | None = None
    for dialect in dialects_of(backbone):
        known = {
            part: RowsOfLayer(site=site, part=number, parts=len(parts))
            for site, parts in module_names(backbone, dialect).items()
            for number, part in enumerate(parts)
        }
        by_prefix: dict[str, dict[str, RowsOfLayer]] = {}
        deepest = max((name.count(".") for name in known), default=0)
        for module in modules:
            for name in _tails(module, deepest):
                if name in known:
                    by_prefix.setdefault(module.removesuffix(name), {})[module] = known[name]
        for prefix in sorted(by_prefix):
            if best is None or len(by_prefix[prefix]) > len(best[2]):
                best = dialect, prefix, by_prefix[prefix]
    first = one_line(next(iter(modules)), 100)
    if best is None:
        known_dialects = ", ".join(dialects_of(backbone)) or "none"
        raise BundleError(
            f"{where}: none of its modules ({first}, …) is a layer of {backbone.name} (dialects: {known_dialects}); "
            "give the backbone it was trained on"
        )
    strange = [m for m in modules if m not in best[2]]
    if strange:
        named = one_line(strange[0], 100)
        raise BundleError(
            f"{where}: {named} ({len(strange)} such) is no layer of {backbone.name} in the dialect {best[0]}; "
            "leave it out by name (leave_out), or give the backbone it was trained on"
        )
    return best


def names_of_held(backbone: Trunk) -> tuple[str, str] | None:
    """The dialect of the model in memory that a trunk was made of, and its prefix there; None: there is none."""
    held: frozenset[str] = getattr(backbone, "held_modules", frozenset())
    for dialect in dialects_of(backbone):
        names = [part for parts in module_names(backbone, dialect).values() for part in parts]
        prefixes = {name.removesuffix(names[0]) for name in held if name == names[0] or name.endswith(f".{names[0]}")}
        for prefix in sorted(prefixes):
            if all(prefix + name in held for name in names):
                return dialect, prefix.strip(".")
    return None


def _tails(module: str, dots: int) -> Iterator[str]:
    """What a name ends in, after a dot or from its start, with at most so many dots of its own."""
    parts = module.split(".")
    for count in range(1, min(dots + 1, len(parts)) + 1):
        yield ".".join(parts[-count:])
