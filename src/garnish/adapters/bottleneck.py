"""Bottleneck adapters: Houlsby (after attention and MLP), Pfeiffer (after the MLP), AdaptFormer (parallel to the MLP).

Houlsby et al., ICML 2019; Pfeiffer et al., EACL 2021; Chen et al., AdaptFormer, NeurIPS 2022.
Shape letters: R rows, N tokens (or H W map), d width of the stage, m bottleneck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from garnish.adapters.layers.bottleneck_layers import (
    Activation,
    ParallelAdapter,
    SerialAdapter,
    narrow_width,
)
from garnish.adapters.places import require, width_at
from garnish.checking.bounds import Dropout, Factor, Narrow, Reduction
from garnish.engine.adapter import Method, Plan, check_factor
from garnish.engine.sites import Site
from garnish.engine.trunk import Trunk


@dataclass(frozen=True, kw_only=True)
class Houlsby(Method):
    """Two adapters per block, on the outputs z of attention and MLP: ``z + U σ(D z + b_D) + b_U``, inside the residual.

    Starts near the identity, not at it: weights N(0, 0.01²), biases zero, as published.

    Attributes:
        reduction: ρ = d/m; the bottleneck of a stage of width d is d/ρ.
        bottleneck: m, the same in every stage; replaces ``reduction`` if given.
        activation: σ.
        dropout: on the hidden vector.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Houlsby(bottleneck=8), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        36481
    """

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"reduction": (64.0, 32.0, 16.0, 8.0)}

    reduction: Reduction = 16.0
    bottleneck: Narrow | None = None
    activation: Activation = "gelu"
    dropout: Dropout = 0.0

    def plan(self, backbone: Trunk) -> Plan:
        """An adapter on every attention and MLP output."""
        sites = [s for s in backbone.sites() if s.kind == "sublayer"]
        require(sites, "Houlsby", backbone, "attention or MLP")
        return _serial_plan(self, backbone, sites, up_std=0.01)


@dataclass(frozen=True, kw_only=True)
class Pfeiffer(Method):
    """One adapter per block, on the output of the MLP, inside drop-path and residual; the identity at the start.

    U is zero and D is N(0, 0.01²); a widespread implementation zeroes both, after which neither ever learns.

    Attributes:
        reduction: ρ = d/m.
        bottleneck: m, the same in every stage; replaces ``reduction`` if given.
        activation: σ.
        dropout: on the hidden vector.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Pfeiffer(bottleneck=8), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        19009
    """

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"reduction": (32.0, 16.0, 8.0, 4.0)}

    reduction: Reduction = 8.0
    bottleneck: Narrow | None = None
    activation: Activation = "gelu"
    dropout: Dropout = 0.0

    def plan(self, backbone: Trunk) -> Plan:
        """An adapter on every MLP output."""
        sites = [s for s in backbone.sites() if s.kind == "sublayer" and s.place == "mlp"]
        require(sites, "Pfeiffer", backbone, "MLPs")
        return _serial_plan(self, backbone, sites, up_std=0.0)


@dataclass(frozen=True, kw_only=True)
class AdaptFormer(Method):
    """One adapter per block, parallel to the MLP's branch: ``h + branch(h) + s·(U σ(D h + b_D) + b_U)``, U zero.

    It reads the stream before the norm and is not subject to the branch's drop-path.

    Attributes:
        bottleneck: m, the same in every stage.
        scale: s, factor of the update; "learnable" makes it a trained scalar that starts at 1.
        activation: σ.
        dropout: on the hidden vector.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.AdaptFormer(bottleneck=8), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        19009
    """

    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"bottleneck": (4, 8, 16, 32, 64)}

    bottleneck: Narrow = 64
    scale: Factor | Literal["learnable"] = 0.1
    activation: Activation = "relu"
    dropout: Dropout = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.scale, str):
            check_factor("AdaptFormer.scale", self.scale)

    def plan(self, backbone: Trunk) -> Plan:
        """An adapter parallel to every MLP branch."""
        sites = [s for s in backbone.sites() if s.kind == "branch" and s.place == "mlp"]
        require(sites, "AdaptFormer", backbone, "MLP branches")
        return Plan(
            {
                s.name: ParallelAdapter(
                    width_at(backbone, s), self.bottleneck, self.activation, self.dropout, self.scale
                )
                for s in sites
            }
        )


def _serial_plan(method: Houlsby | Pfeiffer, backbone: Trunk, sites: list[Site], *, up_std: float) -> Plan:
    adapters = {}
    for site in sites:
        width = width_at(backbone, site)
        narrow = narrow_width(type(method).__name__, width, method.reduction, method.bottleneck, site)
        adapters[site.name] = SerialAdapter(width, narrow, method.activation, method.dropout, up_std=up_std)
    return Plan(adapters)
