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

    Released codes train whatever has "bias" in its name, and so Swin's relative-position tables too; published counts
    for Swin hold them. Here that is ``tables``. Tuned values cannot differ by row, so each owner takes a pass.

    Attributes:
        tables: the relative-position tables as well, where the trunk has any (Swin).
    """

    tables: bool = False

    def plan(self, backbone: Trunk) -> Plan:
        """All biases, and the tables where they are wanted."""
        names = biases(backbone) + (tables(backbone) if self.tables else ())
        require(names, "BitFit", backbone, "biases")
        return Plan(tuned=names)
