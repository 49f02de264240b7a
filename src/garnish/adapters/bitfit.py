"""BitFit: train the biases, in place (Ben Zaken et al., ACL 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from garnish.adapters.places import biases, require, tables
from garnish.engine.adapter import Method, Plan
from garnish.engine.trunk import Trunk


@final
@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """Every bias of layers and norms is trained in place, nothing is added: the identity at the start.

    Released codes train whatever has "bias" in its name, so Swin's relative-position tables too, and published counts
    for Swin include them: see ``tables``. Tuned values cannot differ by row, so each owner needs a pass of its own.

    Attributes:
        tables: train the relative-position tables too, if the trunk has any (Swin).

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.BitFit(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        19457
    """

    tables: bool = False

    def plan(self, backbone: Trunk) -> Plan:
        """All biases, and the tables if asked for, as tuned; no adapter."""
        names = biases(backbone) + (tables(backbone) if self.tables else ())
        require(names, "BitFit", backbone, "biases")
        return Plan(tuned=names)
