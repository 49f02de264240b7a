"""Sites, the places where an adapter can sit, and the canonical names of a trunk's tensors; wrappers change neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from garnish.engine.blocks import Whole, bare
from garnish.engine.units import Body, Unit

SiteKind = Literal["layer", "norm", "sublayer", "branch", "beside", "residual", "feature"]


@dataclass(frozen=True)
class Site:
    """A place where an adapter can sit.

    Attributes:
        name: canonical dotted name, e.g. ``stages.0.blocks.1.attn.qkv``; stable across timm and transformers versions.
        kind: "layer" (linear, convolution), "norm", "sublayer" (the whole attention or MLP), "branch" (norm to
            drop-path), "beside" (parallel to a branch: reads the norm's output, adds to the branch's),
            "residual" (stream plus branch) or "feature" (a map handed to the heads).
        place: part of the trunk: "stem", "enter" or "leave" of a stage, "attn" or "mlp" of a block, "feature".
        role: last part of the name: qkv, proj, fc1, fc2, q, kv, sr, dw, norm, …
        stage: number of the stage, -1 for the stem.
        block: number of the block within the stage, -1 outside blocks.
        unit: number of the unit that holds the site; for a feature map, of the unit after which it is read.
    """

    name: str
    kind: SiteKind
    place: str
    role: str
    stage: int
    block: int
    unit: int


class OffStream(nn.Sequential):
    """Layers that read constants instead of the stream (an MLP that makes a position table): not adapter sites."""


def _is_layer(module: nn.Module) -> bool:
    # a subclass that overrides forward (standardised weights) does not compute a plain function of its weight
    return isinstance(module, nn.Linear | nn.Conv2d) and type(module).forward in (nn.Linear.forward, nn.Conv2d.forward)


def _is_norm(module: nn.Module) -> bool:
    # a norm has parameters of its own; a container such as ConvNorm does not
    return "Norm" in type(module).__name__ and len(module._parameters) > 0


def sites_below(
    module: nn.Module, name: str, place: str, stage: int, block: int, unit: int
) -> Iterator[tuple[Site, nn.Module]]:
    """Every layer and norm inside a module called ``name``, with its current module or wrapper."""
    inner = bare(module)
    role = name.rsplit(".", 1)[-1]
    if isinstance(inner, OffStream):
        return
    if _is_layer(inner):
        yield Site(name, "layer", place, role, stage, block, unit), module
    elif _is_norm(inner):
        yield Site(name, "norm", place, role, stage, block, unit), module
    else:
        for child_name, child in inner.named_children():
            yield from sites_below(child, _join(name, child_name), place, stage, block, unit)


def slots_below(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module, str]]:
    """(canonical name, module, attribute) of each parameter and persistent buffer inside a module called ``name``."""
    inner = bare(module)
    for leaf, parameter in inner._parameters.items():
        if parameter is not None:
            yield f"{name}.{leaf}", inner, leaf
    for leaf, buffer in inner._buffers.items():
        if buffer is not None and leaf not in inner._non_persistent_buffers_set:
            yield f"{name}.{leaf}", inner, leaf
    for child_name, child in inner.named_children():
        yield from slots_below(child, _join(name, child_name))


def _join(name: str, child: str) -> str:
    """Canonical name of a child; ``window``, which only holds another module, does not appear in names."""
    return name if child == "window" else f"{name}.{child}"


def sites_of(body: Body) -> Iterator[tuple[Site, nn.Module]]:
    """Every site, in forward order, with its current module or wrapper."""
    for unit in body.units:
        if unit.kind == "residual":
            yield from _sites_of_residual(unit)
        else:
            yield from sites_below(unit.module, unit.name, unit.kind, unit.stage, -1, unit.number)
        if unit.reads is not None:
            at = unit.reads
            yield Site(f"features.{at}", "feature", "feature", "feature", at, -1, unit.number), body.taps[at]


def _sites_of_residual(unit: Unit) -> Iterator[tuple[Site, nn.Module]]:
    residual, name, role = unit.module, unit.name, unit.key
    where = unit.stage, unit.block, unit.number
    if isinstance(residual, Whole):
        yield from sites_below(residual.body, name, role, *where)
        return
    yield Site(name, "residual", role, role, *where), residual
    inner = bare(residual).branch
    yield Site(f"{name}.branch", "branch", role, "branch", *where), inner
    branch = bare(inner)
    for ending, part in branch.parts():
        if not ending:
            yield Site(f"{name}.sublayer", "sublayer", role, "sublayer", *where), part
        yield from sites_below(part, f"{name}{ending}", role, *where)
    yield Site(f"{name}.beside", "beside", role, "beside", *where), branch.beside


def slots_of(body: Body) -> Iterator[tuple[Unit, str, nn.Module, str]]:
    """(unit, canonical name, module, attribute) of each parameter and persistent buffer; wrappers are skipped."""
    for unit in body.units:
        for name, module in _parts_of(unit):
            yield from ((unit, *slot) for slot in slots_below(module, name))


def _parts_of(unit: Unit) -> Iterator[tuple[str, nn.Module]]:
    residual = unit.module
    if unit.kind != "residual":
        yield unit.name, residual
    elif isinstance(residual, Whole):
        yield unit.name, residual.body
    else:
        for ending, part in bare(bare(residual).branch).parts():
            yield f"{unit.name}{ending}", part
