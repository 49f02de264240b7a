"""The frozen trunk: stem, stages of residual blocks, feature maps and sites.

Shape letters: I images, R rows of the stream, N tokens, H W grid, C channels. The stream is (R, N, C) tokens or
(R, H, W, C) maps, by family.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from garnish.backbones.blocks import FeatureInfo, Residual, Stage
from garnish.backbones.fingerprint import fingerprint
from garnish.backbones.loop import Flow, end_of, run
from garnish.backbones.prefix import TrunkState, run_from, run_prefix
from garnish.backbones.sites import Site
from garnish.backbones.taps import TaskMaps
from garnish.backbones.tuned import Tuned
from garnish.backbones.walk import feature_units, sites_of_trunk, slots_of_trunk
from garnish.context import Binding, ForwardContext, Rows
from garnish.errors import OptionError, SiteError, suggest


class Backbone(nn.Module, ABC):
    """A frozen trunk. A family subclasses it, builds ``stem`` and ``stages`` and says how the stream becomes a map.

    Attributes:
        name: what ``garnish.backbone`` was called with.
        options: the architecture overrides it was called with.
        features: channels and stride of each feature map.
        mean, std: normalisation of the three input channels (pictures arrive in [0, 1]).
        multiple: picture sides are padded to a multiple of this many pixels.
        licence: licence of the loaded weights; "none (random weights)" where nothing was loaded.
        source_names: canonical parameter or buffer name → name in the family's own checkpoints.
        merged: maps are read after the next stage's entrance (patch merging), not before (see :meth:`read_merged`).
        drop_path: rate of stochastic depth in training at the last block (see :func:`garnish.backbone`); 0: none.
        most_prompts: prompt tokens that a stream can carry; 0 where the family's attention takes none.
    """

    most_prompts: int = 0

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, Any],
        stem: nn.Module,
        stages: Sequence[Stage],
        features: Sequence[FeatureInfo],
        mean: Sequence[float],
        std: Sequence[float],
        multiple: int,
        num_prefix: int = 0,
        licence: str = "none (random weights)",
        weights_source: str = "random",
    ) -> None:
        super().__init__()
        self.name = name
        self.options = dict(options)
        self.stem = stem
        self._stages = nn.ModuleList(stages)
        self.taps = nn.ModuleList(nn.Identity() for _ in features)
        self.features = tuple(features)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.multiple = multiple
        self.num_prefix = num_prefix
        self.licence = licence
        self.weights_source = weights_source
        self.merged = False
        self.drop_path = 0.0
        self.binding = Binding()
        for stage in self.stages:
            for block in stage.blocks:
                for residual in block.children():
                    if isinstance(residual, Residual):
                        residual.binding = self.binding
        self.tuned = Tuned(self)
        #: owner → first unit that it adapts, for owners that adapt any
        self.fork_units: dict[int, int] = {}
        #: a task's own part of an owner → that owner; those whose rows leave the trunk at the feature maps
        self.parents: dict[int, int] = {}
        self.streamed: set[int] = set()
        #: owner → prompt tokens that its stream carries
        self.prompts: dict[int, int] = {}
        self._sides = nn.ModuleDict()
        self._shared = nn.ModuleDict()
        self.checkpointing = False
        self.source_names: dict[str, str] = {}

    @property
    def sides(self) -> frozenset[int]:
        """Owners with a side network."""
        return frozenset(int(owner) for owner in self._sides)

    def side(self, owner: int) -> nn.Module:
        """The side network of an owner: (maps by stage, feature maps) → feature maps."""
        return self._sides[str(owner)]

    def shared(self, owner: int) -> nn.Module | None:
        """What all adapters of an owner are made with (a hyper-network), or None."""
        return next((module for kept, module in self._shared.items() if kept == str(owner)), None)

    def give(self, owner: int, *, side: nn.Module | None = None, shared: nn.Module | None = None) -> None:
        """Keep an owner's side network or shared module."""
        for kept, module in ((self._sides, side), (self._shared, shared)):
            if module is not None:
                kept[str(owner)] = module

    def take_back(self) -> None:
        """Forget all side networks and shared modules."""
        self._sides.clear()
        self._shared.clear()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in forward order."""
        return tuple(stage for stage in self._stages if isinstance(stage, Stage))

    # ---- what a family says -------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def names(cls) -> list[str]:
        """Every name this family can build."""

    @classmethod
    @abstractmethod
    def create(cls, name: str, weights: str | bool | None, options: Mapping[str, Any]) -> Backbone:
        """Build ``name``; ``weights`` as for :func:`garnish.backbone`.

        Raises:
            OptionError: an unknown architecture option. WeightsError: weights that do not fit or cannot be read.
        """

    # ---- running ------------------------------------------------------------------------------------------------

    def forward(
        self,
        images: Tensor,
        row_images: Tensor | None = None,
        row_owners: Tensor | None = None,
        present: tuple[int, ...] = (0,),
        counts: tuple[int, ...] | None = None,
        *,
        unread: bool = False,
        start: TrunkState | None = None,
    ) -> tuple[Tensor | TaskMaps, ...]:
        """Run the trunk once.

        Args:
            images: (I, 3, H, W) float32, normalised; sides a multiple of ``multiple``.
            row_images: (R,) int64, the image of each row after the fork; None: nothing forks.
            row_owners: (R,) int64, ascending, position in ``present`` of each row's owner.
            present: owners that act in this pass, all of one group; exactly one where nothing forks.
            counts: rows of each owner; None in compiled passes and where nothing forks.
            unread: maps that tasks' own adapters change alone are handed out as :class:`TaskMaps`, to be read later.
            start: what the bare trunk made of the images before the first unit that an owner of this pass changes; the
                pass goes on from there, and of ``images`` only their number is looked at.

        Returns:
            Raw feature maps, finest first, each (I or R, C_i, H_i, W_i): rows from ``first_forked_of(present)`` on.
        """
        if row_images is None or row_owners is None:
            rows = None
            alone = Rows.whole(images.shape[0], present[0], images.device)
        else:
            rows = alone = Rows(row_images, row_owners, present, counts)
        if present[0] in self.sides:
            return self._run_beside(images, alone, start)
        ctx = ForwardContext(grid=(0, 0), num_prefix=self.num_prefix, owner=present[0])
        if present[0] in self.streamed:
            owner = self.parents[present[0]]
            rows, ctx = None, replace(ctx, owner=owner, streams=alone, num_images=images.shape[0])
        if start is not None:
            return run_from(self, start, ctx, rows, unread=unread)
        return run(self, Flow(images, ctx), rows, unread=unread).maps

    def _run_beside(self, images: Tensor, rows: Rows, start: TrunkState | None) -> tuple[Tensor, ...]:
        """Side networks of one or several owners on one frozen pass, without gradients through the trunk."""
        if start is None:
            with torch.no_grad():
                start = run_prefix(self, images, (0, 0), end_of(self), beside=True)
        states, maps = start.by_stage, list(start.maps)
        assert states is not None, "side networks read what a state without their maps does not hold"
        done = []
        for position, owner in enumerate(rows.present):
            if rows.counts is None:
                done.append(self.side(owner)(states, maps))
            elif rows.counts[position]:
                own = rows.split(rows.images)[position]
                whole = own.shape[0] == images.shape[0]
                taken = [[x if whole else x.index_select(0, own) for x in stage] for stage in states]
                done.append(self.side(owner)(taken, [m if whole else m.index_select(0, own) for m in maps]))
        joined = [torch.cat(level) if len(level) > 1 else level[0] for level in zip(*done, strict=True)]
        if rows.counts is None:  # compiled: every side network saw every image
            joined = [m.index_select(0, rows.owners * images.shape[0] + rows.images) for m in joined]
        return tuple(joined)

    def enter(self, stage: Stage, x: Tensor, ctx: ForwardContext) -> tuple[Tensor, tuple[int, int]]:
        """Run a stage's entrance: the stream and its grid."""
        x = stage.enter(x)
        return x, (x.shape[1], x.shape[2]) if x.ndim == 4 else ctx.grid

    def prompted(self, extras: dict[str, Any], count: int) -> dict[str, Any]:
        """The stem's extras for a stream that has ``count`` prompt tokens behind its prefix tokens."""
        return extras

    def let_drop(self, owner: int, mode: bool) -> None:
        """Whether the trunk's own dropout and drop-path act in the passes of one owner that tunes it."""
        self.train(mode)
        self.tuned.follow(owner)
        self.train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tuned.catch_up_all()
        return self

    # ---- sites and names ----------------------------------------------------------------------------------------

    def sites(self) -> tuple[Site, ...]:
        """Every place an adapter can sit, in forward order (names are those of the bare backbone, adapted or not)."""
        return tuple(site for site, _ in self.sites_with_modules())

    def sites_with_modules(self) -> Iterator[tuple[Site, nn.Module]]:
        """Sites with the module that stands there now (an ``Adapted`` where one was put)."""
        return sites_of_trunk(self.stem, self.stages, self.taps, self.merged)

    def site(self, name: str) -> Site:
        """The site of that name; raises :class:`SiteError` with the nearest."""
        known = {s.name: s for s in self.sites()}
        if name not in known:
            raise SiteError(f"{self.name} has no site {name!r}{suggest(name, known)}")
        return known[name]

    def frozen_tensors(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of the bare backbone by canonical name, before any adapting or tuning."""
        found: dict[str, Tensor] = {}
        for name, module, leaf in self.named_slots():
            tensor = module._parameters.get(leaf)
            found[name] = tensor if tensor is not None else module._buffers[leaf]  # type: ignore[assignment]
        return found

    @property
    def is_adapted(self) -> bool:
        """Whether any owner has added or tunes anything."""
        return bool(self.fork_units or self.parents or self.prompts or self.sides or self.tuned.owners())

    def fork_of(self, present: Sequence[int]) -> int | None:
        """Unit before which rows of these owners fork; None where none of them adapts anything.

        Owners that a pass does not serve have no say, so that it stays bit-identical when others are added.
        """
        units = [self.fork_units[owner] for owner in present if owner in self.fork_units]
        return min(units) if units else None

    def first_forked_of(self, present: Sequence[int]) -> int:
        """Index of the first feature map that has a row per owner in a forked pass; the number of maps if none has."""
        if present[0] in self.streamed or present[0] in self.sides:
            return 0
        fork = self.fork_of(present)
        if fork is None:
            return len(self.stages)
        units = feature_units(self.stages, self.merged)
        return next(index for index, unit in enumerate(units) if unit >= fork)

    @property
    def taps_at(self) -> Literal["stage", "merged"]:
        """Where maps are read."""
        return "merged" if self.merged else "stage"

    def read_merged(self) -> None:
        """Read maps after the next stage's entrance, as decoders of the MTLoRA line do, instead of at stage ends.

        On Swin-T: 192, 384, 768, 768 channels at strides 8, 16, 32, 32.

        Raises:
            OptionError: a plain trunk has no merging.
        """
        if len({f.stride for f in self.features}) == 1:
            raise OptionError(f'{self.name}: a trunk of one stride merges no patches; use taps="stage"')
        self.merged = True
        self.features = (*self.features[1:], self.features[-1])

    def named_slots(self) -> Iterator[tuple[str, nn.Module, str]]:
        """(canonical name, module, attribute) of each parameter and persistent buffer of the bare backbone."""
        return slots_of_trunk(self.stem, self.stages)

    def fingerprint(self) -> str:
        """What identifies the frozen tensors: see :func:`garnish.backbones.fingerprint.fingerprint`."""
        return fingerprint(self.frozen_tensors())
