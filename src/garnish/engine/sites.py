"""Sites, the places where an adapter can sit, and the canonical names of a trunk's tensors; wrappers change neither."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, final

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


def _modules_below(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """(canonical name, frozen module) of a module called ``name`` and of all inside."""
    inner = bare(module)
    yield name, inner
    for child_name, child in inner.named_children():
        yield from _modules_below(child, _join(name, child_name))


def _tensors_of(module: nn.Module, name: str) -> Iterator[tuple[str, str]]:
    """(canonical name, attribute) of each parameter and persistent buffer of a module's own."""
    for leaf, parameter in module._parameters.items():
        if parameter is not None:
            yield f"{name}.{leaf}", leaf
    for leaf, buffer in module._buffers.items():
        if buffer is not None and leaf not in module._non_persistent_buffers_set:
            yield f"{name}.{leaf}", leaf


def _join(name: str, child: str) -> str:
    """Canonical name of a child; ``window``, which only holds another module, does not appear in names."""
    return name if child == "window" else f"{name}.{child}"


@final
@dataclass(frozen=True, eq=False)
class Spot:
    """Where the module of a site hangs: the frozen one, or the outermost wrapper around it."""

    site: Site
    holder: nn.Module
    key: str

    @property
    def module(self) -> nn.Module:
        """The module that runs there now."""
        found = self.holder._modules[self.key]
        assert found is not None
        return found


def spots_of(body: Body) -> Mapping[str, Spot]:
    """Every site by its name, in forward order.

    They are looked for once, as a trunk's modules stay: only wrappers come between them and their holders.
    """
    if "spots" not in body.walked:
        held = {id(child): (parent, key) for parent in body.modules() for key, child in parent._modules.items()}
        body.walked["spots"] = {site.name: Spot(site, *held[id(module)]) for site, module in _walked(body)}
    found: Mapping[str, Spot] = body.walked["spots"]  # type: ignore[assignment]
    return found


def sites_of(body: Body) -> Iterator[tuple[Site, nn.Module]]:
    """Every site, in forward order, with its current module or wrapper."""
    for spot in spots_of(body).values():
        yield spot.site, spot.module


def _walked(body: Body) -> Iterator[tuple[Site, nn.Module]]:
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
    if "owners" not in body.walked:
        body.walked["owners"] = [
            (unit, *owner)
            for unit in body.units
            for name, module in _parts_of(unit)
            for owner in _modules_below(module, name)
        ]
    owners: list[tuple[Unit, str, nn.Module]] = body.walked["owners"]  # type: ignore[assignment]
    for unit, name, module in owners:
        # tensors are looked for each time: merging gives a layer the bias that it lacked
        yield from ((unit, name_of, module, leaf) for name_of, leaf in _tensors_of(module, name))


def _parts_of(unit: Unit) -> Iterator[tuple[str, nn.Module]]:
    residual = unit.module
    if unit.kind != "residual":
        yield unit.name, residual
    elif isinstance(residual, Whole):
        yield unit.name, residual.body
    else:
        for ending, part in bare(bare(residual).branch).parts():
            yield f"{unit.name}{ending}", part
