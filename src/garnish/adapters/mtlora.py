"""MTLoRA and MTLoRA+: shared low-rank updates, and small ones per task in the last block of every stage.

Agiza, Neseem, Reda, CVPR 2024 (sections 3.2 and 3.3).
Shape letters: r rank, r_t a task's rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from garnish.adapters.layers.low_rank import LoRAAdapter, check_rank, low_rank
from garnish.adapters.places import extras, reductions
from garnish.checking.bounds import Dropout, Factor, Narrow
from garnish.engine.adapter import Adapter, Method, Plan, check_factor
from garnish.engine.blocks import bare
from garnish.engine.sites import Site
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError

#: Layers that read the tokens before attention mixes them: they get no task updates, so attention runs once.
_SHARED_ROLES = ("qkv", "q", "k", "v", "kv")


@final
@dataclass(frozen=True, kw_only=True)
class MTLoRA(Method):
    """``y = W x + s·B A dropout(x)`` in every block, ``y_t = W x + s·B_t A_t x_t`` in each stage's last, one pass.

    In the last block of a stage each task has a stream of its own from the attention's output projection to the
    feature map (at the projection there is no x_t yet; it reads dropout(x), with one mask for all tasks); only the
    shared stream enters the next stage. The frozen W x is computed once, from the shared x. All B are zero at the
    start: the identity. In addition, patch embedding, norms, relative-position tables and the reductions between stages
    are trained in place, more than half of a published MTLoRA at r = 16. ``Extras`` trains only these.

    As published, the shared update of fc2 in the very last block gets no gradient (tasks read their own streams, and no
    stage follows). A task's update at fc1 acts only through its B_t at fc2, which is zero at the start: there B_t
    learns from the second step on and A_t from the third, one step later than elsewhere.

    The scale is used as it is (not α/r). MTLoRA's decoders read maps after the reductions:
    ``garnish.backbone(..., taps="merged")``. On trunks without stages (plain ViT) a stage is a quarter of the blocks.
    The released code skips the task updates if the shared rank is 0; here the shared rank is at least 1. It trains
    with the trunk's drop-path at 0.2, drawn for each stream; here that is ``drop_path`` of ``garnish.backbone``, by
    default 0.

    Attributes:
        rank: r, of the shared updates.
        task_rank: r_t, of each task's updates.
        scale: s, factor of both.
        dropout: on the input of the shared updates and of the tasks' updates at the projection (not on x_t).
        plus: MTLoRA+: a shared low-rank update of the reductions, which are frozen otherwise.
        add_shared: y_t includes the shared update of x (the released code's "matrixv2").
        extras: train the parts named above as well; off: only the low-rank updates.
        folded: the shared updates and the extras are already merged into the trunk's weights wherever tasks have no
            updates of their own (``garnish merge`` writes such a trunk); the rest sits in the last blocks.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.MTLoRA(rank=4), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        587361
    """

    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"rank": (4, 8, 16, 32)}

    rank: Narrow = 16
    task_rank: Narrow = 4
    scale: Factor = 4.0
    dropout: Dropout = 0.05
    plus: bool = False
    add_shared: bool = False
    extras: bool = True
    folded: bool = False

    def __post_init__(self) -> None:
        check_factor("MTLoRA.scale", self.scale)

    def plan(self, backbone: Trunk) -> Plan:
        """Shared updates of every linear layer in the blocks; per task, of those after attention in last blocks."""
        layers = {s.name: bare(m) for s, m in backbone.sites_with_modules() if s.kind == "layer"}
        linear = [s for s in backbone.sites() if s.block >= 0 and isinstance(layers.get(s.name), nn.Linear)]
        if not linear:
            raise SiteError(f"MTLoRA: {backbone.name} has no linear layers in its blocks; use LoRA on its convolutions")
        last = {index: len(stage.blocks) - 1 for index, stage in enumerate(backbone.stages)}
        mine = [s for s in linear if s.block == last[s.stage] and s.role not in _SHARED_ROLES]

        def update(site: Site, rank: int, dropout: float) -> LoRAAdapter:
            return low_rank(f"MTLoRA at {site.name}", layers[site.name], rank, self.scale, dropout)

        for site in mine:  # checked now, as the tasks' updates are made only when the plan is carried out
            check_rank(f"MTLoRA.task_rank at {site.name}", layers[site.name], self.task_rank)

        def own() -> dict[str, Adapter]:
            made: dict[str, Adapter] = {}
            for site in mine:
                made[site.name] = update(site, self.task_rank, 0.0)
                made[site.name].on_adapted = self.add_shared
            return made

        shared = mine if self.folded else linear + (reductions(backbone) if self.plus else [])
        return Plan(
            adapters={site.name: update(site, self.rank, self.dropout) for site in shared},
            tuned=extras(backbone, with_reductions=not self.plus) if self.extras and not self.folded else (),
            own=own,
        )
