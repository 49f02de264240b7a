"""Norm tuning: train the norms' weights and biases, in place (for instance Basu et al., AAAI 2024, "LN-Tune")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from garnish.adapters.places import norms, of_sites, require
from garnish.checking.bounds import Names
from garnish.engine.adapter import Method, Plan
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError


@final
@dataclass(frozen=True, kw_only=True)
class NormTuning(Method):
    """Every norm's weight and bias are trained in place, nothing is added: the identity at the start.

    Norms are recognised by module type; released codes take what has "norm" in its name. Published counts include the
    trunk's final norm, which trunks here do not have. Tuned values cannot differ by row, so each owner needs a pass.

    Attributes:
        places: the norms of "stem", "enter" (patch merging), "attn" and "mlp" branches, "leave" (a stage's end);
            ("mlp",) is one norm per block; empty: every norm.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.NormTuning(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        8705
    """

    places: Names = ()

    def plan(self, backbone: Trunk) -> Plan:
        """Weights and biases of the norms at the chosen places as tuned, no adapter."""
        found = norms(backbone)
        require(found, "NormTuning", backbone, "norms with weights")
        known = list(dict.fromkeys(s.place for s in found))
        for place in self.places:
            if place not in known:
                raise SiteError(
                    f"NormTuning.places: {backbone.name} has no norm at {place!r}; it has them at {', '.join(known)}"
                )
        return Plan(tuned=of_sites(backbone, [s for s in found if not self.places or s.place in self.places]))
