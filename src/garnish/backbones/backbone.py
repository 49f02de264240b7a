"""The frozen trunk: stem, stages of residual blocks, feature maps, sites, and the one block loop.

Shape letters: I images, R rows of the stream, N tokens, H W grid, C channels. The stream is (R, N, C) tokens or
(R, H, W, C) maps, by family.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from garnish.backbones.sites import Site, bare, sites_below, slots_below
from garnish.backbones.tuned import Tuned
from garnish.context import Binding, ForwardContext, Rows
from garnish.errors import SiteError, suggest


@dataclass(frozen=True)
class FeatureInfo:
    """One feature map of a backbone: its channels and its stride in pixels of the (padded) picture."""

    channels: int
    stride: float


class Beside(nn.Module):
    """Nothing yet: where an adapter can run parallel to a branch, on what the branch's norm gives."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Normalised stream and branch output in, branch output out."""
        return y


class Branch(nn.Module):
    """A residual branch: norm → layer → scale → drop-path. Its input is the stream **before** the norm."""

    def __init__(self, norm: nn.Module, layer: nn.Module, scale: nn.Module, drop_path: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.layer = layer
        self.scale = scale
        self.drop_path = drop_path
        self.beside = Beside()

    def forward(self, x: Tensor, **extras: Any) -> Tensor:
        """Stream in, what is to be added to it out; ``extras`` (rope) go to the layer."""
        normed = self.norm(x)
        out: Tensor = self.beside(normed, self.drop_path(self.scale(self.layer(normed, **extras))))
        return out


class Residual(nn.Module):
    """Stream plus branch. ``takes`` names the stem's extras that the branch's layer wants."""

    def __init__(self, branch: nn.Module, takes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.branch = branch
        self.takes = takes

    def forward(self, x: Tensor, **extras: Any) -> Tensor:
        """Stream in, stream out."""
        out: Tensor = x + self.branch(x, **extras)
        return out


class LayerScale(nn.Module):
    """Per-channel factor of a branch, for families that keep it as a bare parameter."""

    def __init__(self, gamma: nn.Parameter) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        return x * self.gamma


class Stage(nn.Module):
    """What leads into a stage (patch embedding, merging), its blocks (each residuals by role), what ends it."""

    def __init__(self, enter: nn.Module, blocks: Sequence[Mapping[str, nn.Module]], leave: nn.Module) -> None:
        super().__init__()
        self.enter = enter
        self._blocks = nn.ModuleList(nn.ModuleDict(dict(block)) for block in blocks)
        self.leave = leave

    @property
    def blocks(self) -> tuple[nn.ModuleDict, ...]:
        """The blocks in forward order: role ("attn", "mlp") → residual."""
        return tuple(block for block in self._blocks if isinstance(block, nn.ModuleDict))


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
    """

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
        self.binding = Binding()
        self.tuned = Tuned(self)
        #: owner → first unit that it adapts, for owners that adapt any
        self.fork_units: dict[int, int] = {}
        self.checkpointing = False
        self.source_names: dict[str, str] = {}

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

    # ---- the one block loop -------------------------------------------------------------------------------------

    def forward(
        self,
        images: Tensor,
        row_images: Tensor | None = None,
        row_owners: Tensor | None = None,
        present: tuple[int, ...] = (0,),
    ) -> tuple[Tensor, ...]:
        """Run the trunk once.

        Args:
            images: (I, 3, H, W) float32, normalised; sides a multiple of ``multiple``.
            row_images: (R,) int64, the image of each row after the fork; None: nothing forks.
            row_owners: (R,) int64, position in ``present`` of each row's owner.
            present: owners that act in this pass; exactly one where nothing forks.

        Returns:
            Raw feature maps, finest first, each (I or R, C_i, H_i, W_i): rows from ``first_forked_of(present)`` on.
        """
        rows = None if row_images is None or row_owners is None else Rows(row_images, row_owners, present)
        ctx = ForwardContext(grid=(0, 0), num_prefix=self.num_prefix, owner=present[0])
        unit, maps = 0, []
        images, ctx = self._fork(images, ctx, rows, unit)
        with self.binding.bound(ctx):
            x, grid, extras = self.stem(images)
        ctx = replace(ctx, grid=grid)
        for index, stage in enumerate(self.stages):
            unit += 1
            x, ctx = self._fork(x, ctx, rows, unit)
            with self.binding.bound(ctx):
                x = stage.enter(x)
            ctx = replace(ctx, grid=self._grid(x, ctx))
            for block in stage.blocks:
                x, ctx = self._run_block(block, x, ctx, extras, rows, unit)
                unit += len(block)
            unit += 1
            x, ctx = self._fork(x, ctx, rows, unit)
            with self.binding.bound(ctx):
                x = stage.leave(x)
                maps.append(self.taps[index](ctx.to_map(x)))
        return tuple(maps)

    def _fork(self, x: Tensor, ctx: ForwardContext, rows: Rows | None, unit: int) -> tuple[Tensor, ForwardContext]:
        """Give each (image, owner) its own row, once, before the first unit that an owner of this pass adapts."""
        if rows is None or ctx.rows is not None or unit != self.fork_of(rows.present):
            return x, ctx
        return x.index_select(0, rows.images), replace(ctx, rows=rows)

    def _run_block(
        self,
        block: nn.ModuleDict,
        x: Tensor,
        ctx: ForwardContext,
        extras: Mapping[str, Any],
        rows: Rows | None,
        unit: int,
    ) -> tuple[Tensor, ForwardContext]:
        forked = ctx
        num_units = len(list(block.children()))
        fork = None if rows is None or ctx.rows is not None else self.fork_of(rows.present)
        if fork is not None and unit < fork <= unit + num_units:
            forked = replace(ctx, rows=rows)

        def run(x: Tensor) -> Tensor:
            here = ctx
            for offset, residual in enumerate(block.children(), start=1):
                x, here = self._fork(x, here, rows, unit + offset)
                wanted = {name: extras[name] for name in _takes(residual)}
                with self.binding.bound(here):
                    x = residual(x, **wanted)
            return x

        if self.checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(run, x, use_reentrant=False)
        else:
            out = run(x)
        return out, forked

    @staticmethod
    def _grid(x: Tensor, ctx: ForwardContext) -> tuple[int, int]:
        return (x.shape[1], x.shape[2]) if x.ndim == 4 else ctx.grid

    # ---- sites and names ----------------------------------------------------------------------------------------

    def sites(self) -> tuple[Site, ...]:
        """Every place an adapter can sit, in forward order (names are those of the bare backbone, adapted or not)."""
        return tuple(site for site, _ in self.sites_with_modules())

    def sites_with_modules(self) -> Iterator[tuple[Site, nn.Module]]:
        """Sites with the module that stands there now (an ``Adapted`` where one was put)."""
        unit = 0
        yield from sites_below(self.stem, "stem", "stem", -1, -1, unit)
        for s, stage in enumerate(self.stages):
            unit += 1
            yield from sites_below(stage.enter, f"stages.{s}.enter", "enter", s, -1, unit)
            for b, block in enumerate(stage.blocks):
                for role, residual in block.items():
                    unit += 1
                    name = f"stages.{s}.blocks.{b}.{role}"
                    yield Site(name, "residual", role, role, s, b, unit), residual
                    inner = bare(residual).branch
                    yield Site(f"{name}.branch", "branch", role, "branch", s, b, unit), inner
                    branch = bare(inner)
                    yield from sites_below(branch.norm, f"{name}.norm", role, s, b, unit)
                    yield Site(f"{name}.sublayer", "sublayer", role, "sublayer", s, b, unit), branch.layer
                    yield from sites_below(branch.layer, name, role, s, b, unit)
                    yield from sites_below(branch.scale, f"{name}.scale", role, s, b, unit)
                    yield Site(f"{name}.beside", "beside", role, "beside", s, b, unit), branch.beside
            unit += 1
            yield from sites_below(stage.leave, f"stages.{s}.leave", "leave", s, -1, unit)
            yield Site(f"features.{s}", "feature", "feature", "feature", s, -1, unit), self.taps[s]

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
        return {**found, **self.tuned.frozen_values()}

    @property
    def fork_unit(self) -> int | None:
        """First unit that any owner adapts; None while nothing is adapted."""
        return self.fork_of(tuple(self.fork_units))

    def fork_of(self, present: Sequence[int]) -> int | None:
        """Unit before which rows of these owners fork; None where none of them adapts anything.

        Owners that a pass does not serve have no say, so that it stays bit-identical when others are added.
        """
        units = [self.fork_units[owner] for owner in present if owner in self.fork_units]
        return min(units) if units else None

    @property
    def first_forked(self) -> int:
        """:meth:`first_forked_of` all owners."""
        return self.first_forked_of(tuple(self.fork_units))

    def first_forked_of(self, present: Sequence[int]) -> int:
        """Index of the first feature map that has a row per owner in a forked pass; the number of maps if none has."""
        fork = self.fork_of(present)
        if fork is None:
            return len(self.stages)
        unit = 0
        for index, stage in enumerate(self.stages):
            unit += 2 + sum(len(block) for block in stage.blocks)
            if unit >= fork:
                return index
        raise AssertionError("a fork lies behind the last unit")

    def named_slots(self) -> Iterator[tuple[str, nn.Module, str]]:
        """(canonical name, module, attribute) of each parameter and persistent buffer of the bare backbone."""
        yield from slots_below(self.stem, "stem")
        for s, stage in enumerate(self.stages):
            yield from slots_below(stage.enter, f"stages.{s}.enter")
            for b, block in enumerate(stage.blocks):
                for role, residual in block.items():
                    branch = bare(bare(residual).branch)
                    at = f"stages.{s}.blocks.{b}.{role}"
                    yield from slots_below(branch.norm, f"{at}.norm")
                    yield from slots_below(branch.layer, at)
                    yield from slots_below(branch.scale, f"{at}.scale")
            yield from slots_below(stage.leave, f"stages.{s}.leave")

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes and float32 values of the frozen tensors, so that any storage dtype agrees."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.frozen_tensors().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            value = tensor.detach().cpu().contiguous()
            value = value.float() if value.is_floating_point() else value
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()


def _takes(residual: nn.Module) -> tuple[str, ...]:
    takes: tuple[str, ...] = bare(residual).takes
    return takes
