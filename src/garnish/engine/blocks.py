"""Building blocks of trunks: residuals and their branches, stages of blocks, wrappers, and facts of a feature map.

Shape letters: R rows of the stream, H W grid, C channels.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from garnish.engine.context import Binding, ForwardContext, Kept, joined


@dataclass(frozen=True)
class FeatureInfo:
    """One feature map of a backbone: its channels and its stride in pixels of the (padded) picture."""

    channels: int
    stride: float


class Wrapper(nn.Module, ABC):
    """Base of modules that replace a frozen module and run it.

    Attributes:
        layer: the frozen module, or another wrapper of it.
    """

    layer: nn.Module


def bare(module: nn.Module) -> Any:
    """The frozen module below any number of wrappers."""
    while isinstance(module, Wrapper):
        module = module.layer
    return module


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody wants to see the module called, so that it must not be left out."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(own) or bool(nn.modules.module._has_any_global_hook())  # type: ignore[no-untyped-call]


class Beside(nn.Module):
    """A no-op that marks the site where an adapter can run parallel to a branch, on the output of the branch's norm."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Normalised stream x and branch output y → y."""
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

    def forward(self, x: Tensor, **extras: object) -> Tensor:
        """Stream → branch output, to be added to the stream; ``extras`` (rope) go to the layer."""
        normed = self.norm(x)
        out: Tensor = self.beside(normed, self.drop_path(self.scale(self.layer(normed, **extras))))
        return out

    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        """(name suffix, module) of all parts that hold layers or norms, in forward order; "" is the sublayer."""
        return (".norm", self.norm), ("", self.layer), (".scale", self.scale)


class Residual(nn.Module):
    """Stream plus branch. ``takes`` names the stem's extras that the branch's layer needs."""

    def __init__(self, branch: nn.Module, takes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.branch = branch
        self.takes = takes
        self.binding: Binding | None = None

    def forward(self, x: Tensor, **extras: object) -> Tensor:
        """Stream → stream; rows of task streams that fork inside the branch come after the images' own rows."""
        ctx = None if self.binding is None else self.binding.context
        if ctx is None or self.binding is None or not ctx.is_apart(x):
            added: Tensor = self.branch(x, **extras)
            begun = ctx is not None and ctx.streams is not None and added.shape[0] != x.shape[0]
            return ctx.add(x, added) if ctx is not None and begun else x + added
        kept: Kept = {}
        parts = (part + self._branch_in(here, kept, part, extras) for part, here in ctx.apart(x))
        return joined(parts, x.shape[0])

    def _branch_in(self, ctx: ForwardContext, kept: Kept, x: Tensor, extras: Mapping[str, object]) -> Tensor:
        assert self.binding is not None
        with self.binding.bound(ctx, kept):
            added: Tensor = self.branch(x, **extras)
        return added


class Whole(nn.Module):
    """A block that is not rewritten as residuals (a CNN's): only the layers and norms inside are adapter sites.

    It runs channels-first inside a channels-last stream; the permutation is a view.
    """

    takes: tuple[str, ...] = ()

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H', W', C')."""
        out: Tensor = self.body(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


class LayerScale(nn.Module):
    """Per-channel scale of a branch, for families that keep it as a bare parameter."""

    def __init__(self, gamma: nn.Parameter) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the scale: (…, C) → (…, C)."""
        return x * self.gamma


class Stage(nn.Module):
    """A stage: its entrance (patch embedding or merging), its blocks (residuals by role) and its exit (a norm)."""

    def __init__(self, enter: nn.Module, blocks: Sequence[Mapping[str, nn.Module]], leave: nn.Module) -> None:
        super().__init__()
        self.enter = enter
        self._blocks = nn.ModuleList(nn.ModuleDict(dict(block)) for block in blocks)
        self.leave = leave

    @property
    def blocks(self) -> tuple[nn.ModuleDict, ...]:
        """The blocks in forward order: role ("attn", "mlp") → residual."""
        return tuple(block for block in self._blocks if isinstance(block, nn.ModuleDict))
