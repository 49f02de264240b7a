"""Base of ``Model``: pictures through the adapted trunk, and the feature maps that come out of it.

Shape letters: I pictures, n pictures that ask for a task, H W pixels, C channels, h w a grid.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator, Sequence

import torch
from torch import SymInt, Tensor

from garnish.checking.arguments import checked
from garnish.checking.bounds import Size
from garnish.engine.blocks import FeatureInfo
from garnish.engine.input_pictures import check_tensor, warn_of_range
from garnish.engine.maps import Maps, pick
from garnish.engine.one_pass import first_forked
from garnish.engine.shared_passes import Pass, Wanted, plan_passes, stream_bytes
from garnish.engine.trunk_start import TrunkState, check_start
from garnish.errors import OptionError
from garnish.heads.head import is_plain, pyramid_info, resample_pyramid
from garnish.model.decoders import at_picture_size
from garnish.model.inputs import Inputs
from garnish.model.served import Served
from garnish.model.trained_tensors import TrainedTensors


class TrunkPasses(TrainedTensors, ABC):
    """Runs of the trunk for some tasks of some pictures."""

    def features(
        self,
        images: Tensor,
        tasks: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        pyramid: bool = False,
        start: TrunkState | None = None,
        served: Served | None = None,
    ) -> dict[str, list[Tensor]]:
        """The feature maps of each task, with its adapters, for a decoder of your own.

        Pictures are normalised and padded, and passes shared, as by :meth:`forward`; gradients reach the adapters.

        Args:
            images: as for :meth:`forward`: uint8, or floats from 0 to 1, not normalised.
            tasks: likewise; tasks with and without a head (``gn.NoHead()``) alike.
            pyramid: of a plain ViT, whose maps have one stride s, four of s/4, s/2, s and 2s made of them as for our
                heads (bilinear, average pooling); other trunks have a pyramid already, which stays as it is.
            start: as for :meth:`forward`.
            served: likewise.

        Returns:
            Task → its maps (n, C_i, H_i, W_i), finest first, for the n pictures that asked for it, in picture order;
            :meth:`feature_info` says C_i and the stride, in pixels of the padded pictures. Tasks with the same
            adapters and pictures get the same tensors. Of no pictures, (0, C_i, H_i, W_i) for each task that is named.

        >>> import garnish as gn, torch
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(), {"depth": gn.Depth(max_metres=10)}, gn.NoHead())
        >>> [tuple(x.shape) for x in model.features(torch.rand(2, 3, 90, 120))["depth"]]
        [(2, 32, 24, 32), (2, 64, 12, 16), (2, 160, 6, 8), (2, 256, 3, 4)]
        """
        check_tensor(images)
        now = served or self.served
        asked = Wanted.of(tasks, images.shape[0], now.tasks)
        inputs = Inputs(images, now, asked.tasks, self.mean, self.std, self.backbone.multiple)  # type: ignore[arg-type]
        if not images.shape[0]:
            return {task: self._no_maps(self.feature_info(pyramid=pyramid), inputs.sides) for task in asked.tasks}
        self._look(images, inputs)
        found: dict[str, list[Tensor]] = {}
        for step in self._passes(asked, now, inputs, images.device):
            x = images if start is not None else inputs.of(step.present[0])
            found |= self._run(step, x, start).of(list(step.tasks))
        if pyramid and is_plain(self.backbone.features):
            same = {id(maps): maps for maps in found.values()}  # tasks that share maps also share the resampled ones
            made = {key: resample_pyramid(maps) for key, maps in same.items()}
            found = {task: made[id(maps)] for task, maps in found.items()}
        return {task: found[task] for task in asked.tasks}

    @checked
    def feature_info(self, *, pyramid: bool = False) -> tuple[FeatureInfo, ...]:
        """Channels and stride of each map of :meth:`features`, finest first.

        >>> import garnish as gn
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(), {"depth": gn.Depth(max_metres=10)}, gn.NoHead())
        >>> [(f.channels, f.stride) for f in model.feature_info()]
        [(32, 4.0), (64, 8.0), (160, 16.0), (256, 32.0)]
        """
        own = self.backbone.features
        return pyramid_info(own) if pyramid and is_plain(own) else own

    @checked
    def at_picture_size(self, x: Tensor, size: Size) -> Tensor:
        """What a decoder made of :meth:`features` → the pictures' own size: resized to the padded one, then cropped.

        Pictures were padded right and bottom, so to resize straight to their size would shift what was found.

        Args:
            x: (n, C, h, w) float, on any grid that covers the padded pictures.
            size: (H, W) of the pictures, in pixels.

        Returns:
            (n, C, H, W), as :meth:`forward` gives it: what the task's loss, metric and ``decode`` take.
        """
        if x.ndim != 4 or not x.is_floating_point():
            raise OptionError(f"at_picture_size: expected floats (n, C, h, w), got {x.dtype} {tuple(x.shape)}")
        return at_picture_size(x, size, self.backbone.multiple)

    def prepare(self, images: Tensor, tasks: Sequence[str] | None = None) -> Tensor:
        """Normalise, and pad right and bottom with the mean colour to the backbone's multiple.

        Args:
            images: (I, C, H, W), as :meth:`forward` takes them.
            tasks: whose input it is, of one owner or of owners whose pictures are normalised alike; None: all.

        Returns:
            (I, 3, H', W') red, green and blue; of tasks with other bands (I, 3 + E, H', W'), those behind them.
        """
        check_tensor(images)
        now = self.served
        names = tuple(now.tasks if tasks is None else tasks)
        inputs = Inputs(images, now, names, self.mean, self.std, self.backbone.multiple)  # type: ignore[arg-type]
        return inputs.of_all()

    @property
    def is_compiled(self) -> bool:
        """Whether :meth:`compile` was called."""
        return self._compiled is not None

    def _look(self, images: Tensor, inputs: Inputs) -> None:
        """Warn of pictures in another range; of the first floats alone, since looking makes every step wait."""
        if not self._saw_floats and inputs.is_rgb and warn_of_range(images):
            self._saw_floats = True

    def _passes(self, wanted: Wanted, now: Served, inputs: Inputs, device: torch.device) -> Iterator[Pass]:
        """The runs of the trunk that give the maps of all pictures."""
        body, stream = self.backbone.body, stream_bytes(self.backbone, *inputs.sides)
        return plan_passes(wanted, now.owner_of, body, device, whole=self.is_compiled, picture_bytes=stream)

    def _run(self, step: Pass, x: Tensor, start: TrunkState | None) -> Maps:
        """The feature maps of one pass through the trunk."""
        taken = pick(x, step.images)
        begun = None if start is None else start.pick(step.images)
        if begun is not None:
            check_start(self.backbone, taken, begun, step.present, training=self.training, compiled=self.is_compiled)
        if self._compiled is not None:
            found = self._compiled(taken, step)
        else:
            found = self.backbone(taken, step.present, step.rows, unread=True, start=begun)
        forked = len(found) if step.rows is None else first_forked(self.backbone, step.present)
        return Maps(found, forked, step.tasks)

    def _no_maps(self, facts: Sequence[FeatureInfo], sides: tuple[int | SymInt, int | SymInt]) -> list[Tensor]:
        """The maps of no pictures."""
        like: Tensor = self.mean  # type: ignore[assignment]
        grids = [[math.ceil(int(side) / f.stride) for side in sides] for f in facts]
        return [like.new_zeros(0, f.channels, *grid) for f, grid in zip(facts, grids, strict=True)]
