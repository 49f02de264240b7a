"""Extras: what MTLoRA trains besides its adapters, without them; the control experiment for such methods.

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

    On Swin-T 51,258 parameters plus 1,548,288 of reductions: more than half of what MTLoRA trains in the encoder at
    rank 16. Trunks have no final norm. Tuned values cannot differ by row, so each owner needs a pass of its own.

    Attributes:
        reductions: train the layers between stages too (MTLoRA does, MTLoRA+ does not).

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Extras(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        493153
    """

    is_reference: ClassVar[bool] = True

    reductions: bool = True

    def plan(self, backbone: Trunk) -> Plan:
        """These parameters as tuned, no adapter; in a plain ViT they are the patch embedding and the norms."""
        names = extras(backbone, with_reductions=self.reductions)
        require(names, "Extras", backbone, "a patch embedding, norms, position tables or reductions")
        return Plan(tuned=names)
