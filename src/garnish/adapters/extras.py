"""What multi-task methods of the MTLoRA line train besides their adapters, alone: the control for those methods.

Agiza et al., MTLoRA, CVPR 2024: patch embedding, norms, relative-position tables and patch-merging reductions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from garnish.adapters.places import extras, require
from garnish.engine.adapter import Method, Plan
from garnish.engine.trunk import Trunk


@final
@dataclass(frozen=True, kw_only=True)
class Extras(Method):
    """MTLoRA's extras without its adapters: patch embedding, every norm, position tables and reductions, in place.

    On Swin-T 51,258 parameters and 1,548,288 of reductions: more than half of all that MTLoRA trains in the encoder at
    rank 16. A trunk's final norm is left out. Tuned values cannot differ by row, so each owner takes a pass.

    Attributes:
        reductions: train the layers that lead from stage to stage too (MTLoRA; MTLoRA+ does not).
    """

    is_reference: ClassVar[bool] = True

    reductions: bool = True

    def plan(self, backbone: Trunk) -> Plan:
        """The parameters; those of a plain ViT are its patch embedding and norms."""
        names = extras(backbone, with_reductions=self.reductions)
        require(names, "Extras", backbone, "a patch embedding, norms, position tables or reductions")
        return Plan(tuned=names)
