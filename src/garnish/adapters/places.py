"""Finding parts of a trunk (norms, patch embedding, reductions, position tables, biases, widths) for the methods.

Parts are recognised by kind of site and by the attribute that holds a parameter, never by a substring of a name: a
substring filter on "bias" or "norm" also catches relative-position tables.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from garnish.engine.blocks import bare
from garnish.engine.sites import Site
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError

#: attribute in which attention keeps the learned bias of each pair of relative positions in a window
_TABLE = "relative_position_bias_table"


def parameters(backbone: Trunk) -> list[tuple[str, str]]:
    """(canonical name, attribute) of every parameter of the bare trunk, without buffers."""
    slots = backbone.named_slots()
    return [(n, leaf) for n, module, leaf in slots if isinstance(module._parameters.get(leaf), nn.Parameter)]


def biases(backbone: Trunk) -> tuple[str, ...]:
    """Names of all biases of layers and norms, and of attention's own (``q_bias``); no relative-position tables."""
    return tuple(n for n, leaf in parameters(backbone) if leaf == "bias" or leaf.endswith("_bias"))


def tables(backbone: Trunk) -> tuple[str, ...]:
    """Names of all relative-position tables."""
    return tuple(n for n, leaf in parameters(backbone) if leaf == _TABLE)


def norms(backbone: Trunk) -> list[Site]:
    """Sites of all norms that have parameters, in forward order."""
    found = backbone.sites_with_modules()
    return [s for s, m in found if s.kind == "norm" and any(p is not None for p in bare(m)._parameters.values())]


def patch_embed(backbone: Trunk) -> list[Site]:
    """Sites of the patch embedding's layers, in the stem or in the first stage's entrance."""
    layers = [s for s in backbone.sites() if s.kind == "layer"]
    stem = [s for s in layers if s.place == "stem"]
    return stem or [s for s in layers if s.place == "enter" and s.stage == 0]


def reductions(backbone: Trunk) -> list[Site]:
    """Sites of the layers between stages (Swin's patch merging, MiT's and ConvNeXt's convolutions)."""
    first = {s.name for s in patch_embed(backbone)}
    return [s for s in backbone.sites() if s.kind == "layer" and s.place == "enter" and s.name not in first]


def of_sites(backbone: Trunk, sites: Iterable[Site]) -> tuple[str, ...]:
    """Names of all parameters of these layers and norms, in forward order."""
    modules = {s.name: bare(m) for s, m in backbone.sites_with_modules()}
    return tuple(f"{s.name}.{leaf}" for s in sites for leaf, p in modules[s.name]._parameters.items() if p is not None)


def extras(backbone: Trunk, *, with_reductions: bool) -> tuple[str, ...]:
    """Names of what MTLoRA trains in place: patch embedding, norms, reductions if asked for, position tables."""
    sites = [*patch_embed(backbone), *norms(backbone), *(reductions(backbone) if with_reductions else ())]
    return of_sites(backbone, sites) + tables(backbone)


def width_at(backbone: Trunk, site: Site) -> int:
    """Channels of the stream at a branch, sublayer or residual: the length of that branch's norm.

    Feature maps may be wider (they can be read after the next stage's merging).
    """
    for other, module in backbone.sites_with_modules():
        weight = getattr(bare(module), "weight", None)
        at = (other.stage, other.block, other.place)
        if other.kind == "norm" and weight is not None and at == (site.stage, site.block, site.place):
            return int(weight.shape[0])
    return backbone.features[site.stage].channels


def require(found: Iterable[object], label: str, backbone: Trunk, needs: str) -> None:
    """Refuse a trunk that lacks the parts that a method adapts.

    Raises:
        SiteError: ``found`` is empty; ``needs`` names the parts in the message.
    """
    if not any(True for _ in found):
        raise SiteError(f"{label}: {backbone.name} has none of what it needs ({needs}); use another method")
