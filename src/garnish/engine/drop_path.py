"""Stochastic depth of a frozen or tuned trunk (Huang et al., Deep networks with stochastic depth, ECCV 2016)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from timm.layers import DropPath
from torch import nn

from garnish.engine.blocks import Residual, bare
from garnish.engine.owner import Owner, owners_of
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError

#: architecture options of the families that set the same, but for full fine-tuning only
RATES = ("drop_path", "drop_path_rate")


def set_drop_path(trunk: Trunk, rate: float) -> None:
    """Set stochastic depth for the residual branches of a trunk in training: see :func:`garnish.backbone`.

    The branches of a block share its rate, which grows linearly from 0 at the first block to ``rate`` at the last
    (section 3 of the paper, and every family's own code).

    Args:
        trunk: with adapters or without.
        rate: in [0, 1); 0 leaves the trunk as it is.

    Raises:
        OptionError: a rate that is no number, out of range or also given as an option, or a trunk without residuals.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise OptionError(f"{trunk.name}: drop_path: expected a number, got {rate!r}")
    if not 0 <= rate < 1:
        raise OptionError(f"{trunk.name}: drop_path: {rate!r} is out of range; use 0 to below 1")
    if rate == 0:
        return
    if given := sorted(set(RATES) & set(trunk.options)):
        raise OptionError(f"{trunk.name}: drop_path {rate} and the option {given[0]}: leave one of them out")
    blocks = [list(_branches(block)) for stage in trunk.stages for block in stage.blocks]
    if not all(blocks):
        raise OptionError(f"{trunk.name}: drop_path: its blocks have no residual branches to drop; leave it out")
    for number, branches in enumerate(blocks):
        for branch in branches:
            branch.drop_path = DropPath(rate * number / max(len(blocks) - 1, 1)).eval()
    trunk.drop_path = float(rate)
    for owner in owners_of(trunk):
        owner.lay_out(trunk.body)


def let_paths_drop(trunk: Trunk, owners: Collection[Owner], acting: Collection[Owner]) -> None:
    """Turn stochastic depth on in the passes of some owners; owners without their own modules share the trunk's.

    Args:
        trunk: with a rate or without one.
        owners: all owners of the trunk.
        acting: the owners in whose passes branches are dropped.
    """
    if not trunk.drop_path:
        return
    # owners that fully fine-tune have all their modules in training mode anyway
    apart = [owner for owner in owners if len(owner.tuned) and not owner.drops]
    shared = any(not len(owner.tuned) for owner in acting)
    for mode, following in (
        (False, [owner for owner in apart if owner not in acting]),
        (True, [owner for owner in apart if owner in acting]),
        (shared, []),
    ):
        for path in _paths(trunk):
            path.train(mode)
        for owner in following:
            owner.follow()


def _paths(trunk: Trunk) -> Iterator[nn.Module]:
    for stage in trunk.stages:
        for block in stage.blocks:
            yield from (branch.drop_path for branch in _branches(block))  # type: ignore[misc]


def _branches(block: nn.ModuleDict) -> Iterator[nn.Module]:
    for residual in block.values():
        found = bare(residual)
        if isinstance(found, Residual):
            yield bare(found.branch)
