"""The frozen trunk, base class of all backbones: stem, stages, feature maps, adapter sites, tensor names and owners.

Shape letters: R rows of the stream, N tokens, H W grid, C channels. Depending on the family, the stream (what flows
from block to block) is (R, N, C) tokens or (R, H, W, C) maps.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Self

from torch import Tensor, nn

from garnish.checking.deprecated import deprecated
from garnish.engine.blocks import FeatureInfo, Stage
from garnish.engine.context import Binding, ForwardContext
from garnish.engine.memory import Level, levels_of
from garnish.engine.sites import Site, sites_of, slots_of
from garnish.engine.units import Body, Unit
from garnish.errors import OptionError


class Trunk(nn.Module, ABC):
    """The frozen network that methods adapt and the block loop runs; families derive from its subclass ``Backbone``.

    Attributes:
        name: the name given to ``garnish.backbone``.
        options: the architecture overrides given to it.
        body: the frozen modules, with wrappers where adapters sit.
        owners: number → owner of adapters in this trunk (see :mod:`garnish.engine.owner`).
        features: channels and stride of each feature map.
        mean, std: normalisation of the three input channels (pictures arrive in [0, 1]).
        levels: what each block keeps in a training pass, see :attr:`memory`.
        multiple: picture sides are padded to a multiple of this many pixels.
        num_prefix: number of class and register tokens before the grid's tokens.
        licence: licence of the loaded weights; "none (random weights)" where nothing was loaded.
        source_names: canonical parameter or buffer name → name in the family's own checkpoints.
        drop_path: rate of stochastic depth in training at the last block (see :func:`garnish.backbone`); 0: none.
        most_prompts: the largest number of prompt tokens; 0 where the family's attention supports none.
    """

    most_prompts: int = 0

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, object],
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
        self.body = Body(stem, stages, len(features))
        self.owners = nn.ModuleDict()
        self._added = 0
        self.features = tuple(features)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.multiple = multiple
        self.num_prefix = num_prefix
        self.licence = licence
        self.weights_source = weights_source
        self.drop_path = 0.0
        self.memory = "lean"
        self.source_names: dict[str, str] = {}

    # ---- what runs ----------------------------------------------------------------------------------------------

    @property
    def stem(self) -> nn.Module:
        """The stem: pictures → the stream, its grid and extra inputs of the blocks (a rotary table)."""
        return self.body.stem

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in forward order."""
        return self.body.stages

    @property
    def taps(self) -> nn.ModuleList:
        """One identity module per feature map, where adapters of feature maps attach."""
        return self.body.taps

    @property
    def binding(self) -> Binding:
        """The object through which the loop hands the context of a pass to the modules."""
        return self.body.binding

    @property
    def units(self) -> tuple[Unit, ...]:
        """The steps of the block loop, in forward order."""
        return self.body.units

    def enter(self, entrance: nn.Module, x: Tensor, ctx: ForwardContext) -> tuple[Tensor, tuple[int, int]]:
        """Run a stage's entrance (patch embedding or merging); returns the new stream and its grid."""
        x = entrance(x)
        return x, (x.shape[1], x.shape[2]) if x.ndim == 4 else ctx.grid

    def prompted(self, extras: Mapping[str, Tensor | None], count: int) -> Mapping[str, Tensor | None]:
        """The stem's extras, adjusted to a stream with ``count`` prompt tokens after its prefix tokens."""
        return extras

    @property
    def is_adapted(self) -> bool:
        """Whether any owner adds adapters or tunes parameters."""
        return any(owner.acts for owner in self.owners.values())

    @property
    def memory(self) -> Level | tuple[Level, ...]:
        """How much a training pass keeps for its backward pass: one level, or one per block over all stages.

        See :mod:`garnish.engine.memory`; gradients do not depend on it. Setting another raises :class:`OptionError`.
        """
        return self._memory

    @memory.setter
    def memory(self, memory: Level | Sequence[Level]) -> None:
        self.levels = levels_of(f"{self.name}.memory", memory, sum(len(stage.blocks) for stage in self.stages))
        self._memory = self.levels[0] if len(set(self.levels)) == 1 else self.levels

    @property
    @deprecated('write memory == "least"; since 0.1, gone in 0.3')
    def checkpointing(self) -> bool:
        """Whether every block runs again in the backward pass; an older name of ``memory == "least"``."""
        return self.memory == "least"

    @checkpointing.setter
    @deprecated('write memory = "least", or "lean"; since 0.1, gone in 0.3')
    def checkpointing(self, checkpointing: bool) -> None:
        self.memory = "least" if checkpointing else "lean"

    def next_number(self) -> int:
        """A number for a new owner; numbers are never reused."""
        self._added += 1
        return self._added - 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for owner in self.owners.values():
            owner.catch_up(self.body)  # type: ignore[operator]
        return self

    # ---- sites and names ----------------------------------------------------------------------------------------

    def sites(self) -> tuple[Site, ...]:
        """Every place where an adapter can sit, in forward order; adapting does not change their names."""
        return tuple(site for site, _ in self.sites_with_modules())

    def sites_with_modules(self) -> Iterator[tuple[Site, nn.Module]]:
        """Sites, each with its current module (the ``Adapted`` wrapper where there is one)."""
        return sites_of(self.body)

    def named_slots(self) -> Iterator[tuple[str, nn.Module, str]]:
        """(canonical name, module, attribute) of each parameter and persistent buffer of the bare backbone."""
        for _, name, module, leaf in slots_of(self.body):
            yield name, module, leaf

    def frozen_tensors(self) -> dict[str, Tensor]:
        """Canonical name → parameter or persistent buffer of the bare backbone, without any adapter or tuned value."""
        found: dict[str, Tensor] = {}
        for name, module, leaf in self.named_slots():
            tensor = module._parameters.get(leaf)
            found[name] = tensor if tensor is not None else module._buffers[leaf]  # type: ignore[assignment]
        return found

    # ---- feature maps -------------------------------------------------------------------------------------------

    @property
    def merged(self) -> bool:
        """Whether maps are read after the next stage's entrance (patch merging); see :meth:`read_merged`."""
        return self.body.merged

    @property
    def taps_at(self) -> Literal["stage", "merged"]:
        """Where maps are read, as :func:`garnish.backbone` takes it."""
        return "merged" if self.merged else "stage"

    def read_merged(self) -> None:
        """Read maps after the next stage's patch merging, as the decoders of MTLoRA do, instead of at stage ends.

        On Swin-T: 192, 384, 768, 768 channels at strides 8, 16, 32, 32.

        Raises:
            OptionError: a plain transformer, which has no patch merging.
        """
        if len({f.stride for f in self.features}) == 1:
            raise OptionError(f'{self.name}: a trunk of one stride merges no patches; use taps="stage"')
        self.body.read_merged()
        self.features = (*self.features[1:], self.features[-1])
