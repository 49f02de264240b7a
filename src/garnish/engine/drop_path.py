"""Stochastic depth of a trunk, frozen or tuned (Huang et al., Deep networks with stochastic depth, ECCV 2016)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from timm.layers import DropPath
from torch import nn

from garnish.engine.blocks import Residual, bare
from garnish.engine.owner import Owner, owners_of
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError

#: architecture options of the families that say the same for full fine-tuning alone
_OPTIONS = ("drop_path", "drop_path_rate")


def set_drop_path(trunk: Trunk, rate: float) -> None:
    """Let the residual branches of a trunk be dropped in training, whatever trains: see :func:`garnish.backbone`.

    A block's branches share its rate, which grows linearly over the blocks from 0 at the first to ``rate`` at the last
    (section 3 of the paper, and every family's own code).

    Args:
        trunk: adapted or not.
        rate: 0 leaves the trunk as it is.

    Raises:
        OptionError: no rate, one out of range, one that an architecture option gives too, or a trunk without residuals.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise OptionError(f"{trunk.name}: drop_path: expected a number, got {rate!r}")
    if not 0 <= rate < 1:
        raise OptionError(f"{trunk.name}: drop_path: {rate!r} is out of range; use 0 to below 1")
    if rate == 0:
        return
    if given := sorted(set(_OPTIONS) & set(trunk.options)):
        raise OptionError(f"{trunk.name}: drop_path {rate} and the option {given[0]}: leave one of them out")
    blocks = [list(_branches(block)) for stage in trunk.stages for block in stage.blocks]
    if not all(blocks):
        raise OptionError(f"{trunk.name}: drop_path: its blocks are no residuals whose branches could be dropped")
    for number, branches in enumerate(blocks):
        for branch in branches:
            branch.drop_path = DropPath(rate * number / max(len(blocks) - 1, 1)).eval()
    trunk.drop_path = float(rate)
    for owner in owners_of(trunk):
        owner.lay_out(trunk.body)


def let_paths_drop(trunk: Trunk, owners: Collection[Owner], acting: Collection[Owner]) -> None:
    """Let paths drop in passes of some owners; those without modules of their own share the trunk's, with all such.

    Args:
        trunk: with a rate or without one.
        owners: all of the trunk.
        acting: those of them in whose passes paths drop.
    """
    if not trunk.drop_path:
        return
    # full fine-tuning's own modules are in training mode as a whole
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
