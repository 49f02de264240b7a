"""What an adapter is (it sits at one site) and what a method is (its plan over all sites).

Shape letters: R rows, N tokens, C channels; layers may see windows folded into R.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.context import ForwardContext


class Adapter(nn.Module, ABC):
    """What sits at one site for one owner. Three doors, all optional; each leaves things as they are by default.

    An adapter is written as if every row were its own: where tasks own adapters, the rows of each are brought to it
    by :mod:`garnish.adapters.per_task`. It never reaches for a global, and must not depend on the number of rows.

    Attributes:
        in_weight_space: the wrapper runs the frozen layer once with :meth:`merged`'s weight instead of calling the
            doors ``before`` and ``after`` (DoRA and other maps that are not sums).
    """

    in_weight_space: bool = False

    def before(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        """Edit what enters the frozen module."""
        return x

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Edit what leaves the frozen module, given ``x``, which entered the wrapper.

        At a layer ``x`` is the layer's input; at a branch, the stream before the norm; at a residual, the stream
        before the branch, and ``y`` the stream after the add; at a feature both are the map (R, C, H, W).
        """
        return y

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
        """The same map as a plain layer with the shapes of ``weight`` and ``bias``; None where there is none."""
        return None


@dataclass(eq=False)
class Plan:
    """What one owner adds to a backbone.

    Attributes:
        adapters: site name → adapter; at most one a site and method.
        tuned: canonical names of backbone parameters trained in place (stored as named deltas).
        drops: whether the backbone's own dropout and drop-path act in training (only where it is trained itself).
    """

    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    tuned: tuple[str, ...] = ()
    drops: bool = False


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """The options of a method; :meth:`plan` says what it puts where. Subclasses are frozen dataclasses.

    Attributes:
        per_task: each task owns its own copy (else one copy is shared by all tasks it is trained for).
    """

    per_task: bool = False

    @abstractmethod
    def plan(self, backbone: Backbone) -> Plan:
        """New adapters for a bare or adapted backbone, initialised from torch's global generator.

        Raises:
            SiteError: where the options do not fit (rank over width, no such site), with the values.
        """
