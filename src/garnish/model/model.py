"""``Model``: one frozen backbone, the adapters of its owners, a head per task; pictures in, ``{task: tensor}`` out.

Shape letters: I pictures, n pictures that ask for a task, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.checking.arguments import checked
from garnish.checking.bounds import Size
from garnish.checking.plain_data import Json
from garnish.decodings.prediction import Prediction
from garnish.engine.adapter import Method
from garnish.engine.attach import check_sites
from garnish.engine.compiled import CompiledTrunk, compile_module
from garnish.engine.input_pictures import check_tensor, prepared
from garnish.engine.maps import Maps, pick
from garnish.engine.one_pass import first_forked
from garnish.engine.owner import Owner
from garnish.engine.shared_passes import Pass, Wanted, plan_passes, stream_bytes
from garnish.engine.trunk_start import TrunkState, check_start
from garnish.errors import OptionError
from garnish.heads.head import Head
from garnish.model.adapted_trunk import AdaptedTrunk
from garnish.model.decoders import Outputs, decode_maps, needed
from garnish.model.given_picture import Picture
from garnish.model.input_size import SizeRule
from garnish.model.inputs import Inputs
from garnish.model.served import Served
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands
from garnish.pictures.given_bands import Extra
from garnish.tasks.task import Task
from garnish.tiles.tiling import Overlap, Tile


@checked
def adapt(
    backbone: Backbone,
    method: Method | Sequence[Method],
    tasks: Mapping[str, Task],
    head: Head | Mapping[str, Head] | None = None,
    *,
    bands: Bands | None = None,
    statistics: BandStatistics | None = None,
    extra: Extra = "zero",
) -> Model:
    """Make a model: put adapters into a backbone, and a head on it for each task.

    Args:
        backbone: a fresh trunk of :func:`garnish.backbone`; the model takes it over.
        method: how to adapt it; several are combined at their sites in the order given.
        tasks: name → task.
        head: one head for all tasks, or one per task by name; None: ``LinearHead()``.
        bands: of the pictures that the tasks take; None: 8-bit RGB. Bands called red, green and blue meet the filters
            that the trunk has for them; the others enter through one trained tensor at its first layer.
        statistics: of those bands over the training pictures, by which others than red, green and blue are normalised.
        extra: what the filters of other bands begin as: "zero", so that the start equals the trunk, or "mean", the mean
            of the trunk's three (scaled, see docs/pictures.md).

    Raises:
        SiteError: a plan that does not fit the backbone. OptionError: tasks or heads that do not fit each other.
    """
    if backbone.is_adapted:
        raise OptionError(
            f"{backbone.name} is adapted already; build a fresh one with garnish.backbone, or use model.add"
        )
    model = Model(backbone)
    model.add(method, tasks, head, bands=bands, statistics=statistics, extra=extra)
    return model


class Model(AdaptedTrunk):
    """Backbone, adapters and heads. Make one with :func:`adapt` or :func:`garnish.load`.

    Any number of threads may run one model at once, even while tasks are added and removed: a pass uses the tasks that
    existed when it began. Mode and device must not change meanwhile.
    """

    @checked
    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)

    # ---- running ------------------------------------------------------------------------------------------------

    def forward(
        self,
        images: Tensor,
        tasks: Sequence[str] | Sequence[Sequence[str]] | None = None,
        start: TrunkState | None = None,
        served: Served | None = None,
    ) -> dict[str, Tensor]:
        """Run all tasks, some, or different ones for each picture, in as few passes as possible.

        Args:
            images: (I, 3, H, W) float in [0, 1], or uint8 in 0 … 255; any H and W from 1. Of tasks with bands of their
                own (I, C, H, W): floats of ``Bands.values``, NaN where there are no data, or integers as files hold.
            tasks: None: all; ``["depth"]``: some; ``[["seg"], ["depth"], ["seg", "depth"]]``: per picture.
            start: saved state of the bare trunk for these pictures (see ``unchanged_start``) to continue from.
            served: an earlier value of :attr:`served`, whose tasks to use; None: the current one.

        Returns:
            Task name → (n, C, H, W) raw output for the n pictures that asked for it, in picture order. For a batch of
            no pictures, (0, C, H, W) for each task that is named.
        """
        check_tensor(images)
        now, size, device = served or self.served, (images.shape[-2], images.shape[-1]), images.device
        asked = Wanted.of(tasks, images.shape[0], now.tasks)
        wanted = asked.with_needed(lambda names: needed(now.decoders, names))
        inputs = Inputs(images, now, wanted.tasks, self.mean, self.std, self.backbone.multiple)  # type: ignore[arg-type]
        if isinstance(images.shape[0], int) and not images.shape[0]:  # reshapings of trunks cannot tell its sizes
            like: Tensor = self.mean  # type: ignore[assignment]
            return {task: like.new_zeros(0, now.tasks[task].channels, *size) for task in asked.tasks}
        outputs = Outputs(now.decoders, self.backbone, size)
        body, stream = self.backbone.body, stream_bytes(self.backbone, *inputs.sides)
        for step in plan_passes(wanted, now.owner_of, body, device, whole=self.is_compiled, picture_bytes=stream):
            outputs.read(self._run(step, images if start is not None else inputs.of(step.present[0]), start))
        found = outputs.all()
        return {task: pick(found[task], wanted.rows_for(task, asked, device)) for task in asked.tasks}

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

    def decode(self, maps: Mapping[str, Sequence[Tensor]], size: tuple[int, int]) -> dict[str, Tensor]:
        """Feature maps of each task → its raw output: see :func:`garnish.model.decoders.decode_maps`."""
        return decode_maps(self.decoders.by_task, maps, self.backbone, size)

    def compile(self, **options: object) -> None:
        """Compile the adapted backbone and the heads separately; one graph then serves every mix of tasks.

        ``options`` go to ``torch.compile`` (``backend``, ``mode``, …).
        """
        self._compiled = CompiledTrunk(self.backbone, options)
        for _, module in self.decoders.each():
            compile_module(module, options)

    @property
    def is_compiled(self) -> bool:
        """Whether :meth:`compile` was called."""
        return self._compiled is not None

    # ---- its parts and tensors ------------------------------------------------------------------------------

    @checked
    def owner_of(self, task: str) -> Owner:
        """The owner whose adapters a task uses: the task's own part if it has one."""
        return self.served.owner(task)

    @checked
    def bands_of(self, task: str) -> Bands:
        """The bands of the pictures that a task takes."""
        return self.served.owner(task).bands

    @checked
    def head(self, task: str) -> nn.Module:
        """The decoder of a task, which other tasks may share."""
        return self.decoders.of(task).module

    @checked
    def head_tensors(self, task: str) -> dict[str, Tensor]:
        """The parameters and buffers (running statistics) of a task's decoder by stored name."""
        return self.decoders.tensors(task)

    def own_tensors(self) -> dict[str, Tensor]:
        """All tensors that a bundle or a checkpoint of this model holds, by stored name."""
        found: dict[str, Tensor] = {}
        for owner in self.owners:
            found.update(owner.tensors())
        for task in self.tasks:
            found.update(self.head_tensors(task))
        return found

    def all_tensors(self) -> dict[str, Tensor]:
        """The bare trunk's tensors, :meth:`own_tensors`, and the mean and std of the input, by name."""
        return self.backbone.frozen_tensors() | self.own_tensors() | dict(self.named_buffers(recurse=False))

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters to give to an optimizer, by stored name."""
        return {n: t for n, t in self.own_tensors().items() if isinstance(t, nn.Parameter) and t.requires_grad}

    @property
    def device(self) -> torch.device:
        """The device of the model's tensors."""
        mean: Tensor = self.mean  # type: ignore[assignment]
        return mean.device

    def check_sites(self) -> None:
        """Run one probe pass; raises :class:`SiteError` if an adapter wrapper is not called exactly once."""
        side = 2 * self.backbone.multiple
        probe = torch.rand(1, 3, side, side, device=self.device)
        check_sites(self.backbone, prepared(probe, self.mean, self.std, self.backbone.multiple))  # type: ignore[arg-type]

    # ---- modules of higher layers are imported on use -------------------------------------------------------------

    @checked
    def predict(
        self,
        picture: Picture,
        tasks: Sequence[str] | None = None,
        *,
        size: SizeRule = None,
        tile: Tile | None = "auto",
        overlap: Overlap | None = None,
        flip: bool = False,
        probabilities: bool = False,
    ) -> Prediction[Tensor, Task]:
        """Predict all tasks (or some) of one picture, at its own size: see :func:`garnish.model.predict.predict`."""
        from garnish.model.predict import predict

        return predict(
            self, picture, tasks, size=size, tile=tile, overlap=overlap, flip=flip, probabilities=probabilities
        )

    def predict_many(self, pictures: object, *given: Any, **options: Any) -> Iterator[Prediction[Tensor, Task]]:
        """Predict a folder, a list, a video … one after the other: see :mod:`garnish.model.predict_many`."""
        from garnish.model.predict_many import predict_many

        return predict_many(self, pictures, *given, **options)

    @checked
    def report(self, size: Size | None = None) -> dict[str, Json]:
        """Parameters of encoder and of heads, bytes, MACs: see :func:`garnish.model.report.report`."""
        from garnish.model.report import report

        return report(self, size)

    def __repr__(self) -> str:
        from garnish.model.report import describe_model

        return describe_model(self)

    def _repr_html_(self) -> str:
        from garnish.model.report import model_page

        return model_page(self)

    def save(self, path: str | Path, **options: object) -> Path:
        """Write a bundle: see :func:`garnish.bundles.bundle.save`."""
        from garnish import save

        return save(self, path, **options)  # type: ignore[no-any-return]

    @checked
    def load(self, path: str | Path) -> tuple[str, ...]:
        """Add the tasks of a bundle to the existing ones, and return their names.

        Other threads may run passes meanwhile. See :func:`garnish.bundles.bundle.load_into`.
        """
        from garnish.bundles.bundle import load_into

        return load_into(self, path)
