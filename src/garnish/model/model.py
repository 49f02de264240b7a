"""``Model``: one frozen backbone, the adapters of its owners, a head per task; pictures in, ``{task: tensor}`` out.

Shape letters: I pictures, n pictures that ask for a task, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

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
from garnish.engine.input_pictures import check_images, prepared
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
from garnish.model.served import Served
from garnish.predicting.overlapping import Every, Failure, PassSize
from garnish.tasks.task import Task
from garnish.tiles.tiling import Overlap, Tile


@checked
def adapt(
    backbone: Backbone,
    method: Method | Sequence[Method],
    tasks: Mapping[str, Task],
    head: Head | Mapping[str, Head] | None = None,
) -> Model:
    """Make a model: put adapters into a backbone, and a head on it for each task.

    Args:
        backbone: a fresh trunk of :func:`garnish.backbone`; the model takes it over.
        method: how to adapt it; several are combined at their sites in the order given.
        tasks: name → task.
        head: one head for all tasks, or one per task by name; None: ``LinearHead()``.

    Raises:
        SiteError: a plan that does not fit the backbone. OptionError: tasks or heads that do not fit each other.
    """
    if backbone.is_adapted:
        raise OptionError(
            f"{backbone.name} is adapted already; build a fresh one with garnish.backbone, or use model.add"
        )
    model = Model(backbone)
    model.add(method, tasks, head)
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
            images: (I, 3, H, W) float in [0, 1], or uint8 in 0 … 255; any H and W from 1.
            tasks: None: all; ``["depth"]``: some; ``[["seg"], ["depth"], ["seg", "depth"]]``: per picture.
            start: saved state of the bare trunk for these pictures (see ``unchanged_start``) to continue from.
            served: an earlier value of :attr:`served`, whose tasks to use; None: the current one.

        Returns:
            Task name → (n, C, H, W) raw output for the n pictures that asked for it, in picture order. For a batch of
            no pictures, (0, C, H, W) for each task that is named.
        """
        check_images(images)
        now, size = served or self.served, (images.shape[-2], images.shape[-1])
        asked = Wanted.of(tasks, images.shape[0], now.tasks)
        if isinstance(images.shape[0], int) and not images.shape[0]:  # reshapings of trunks cannot tell its sizes
            like = self.prepare(images)
            return {task: like.new_zeros(0, now.tasks[task].channels, *size) for task in asked.tasks}
        wanted = asked.with_needed(lambda names: needed(now.decoders, names))
        x = self.prepare(images) if start is None else images
        outputs = Outputs(now.decoders, self.backbone, size)
        body, stream = self.backbone.body, stream_bytes(self.backbone, x.shape[-2], x.shape[-1])
        for step in plan_passes(wanted, now.owner_of, body, x.device, whole=self.is_compiled, picture_bytes=stream):
            outputs.read(self._run(step, x, start))
        found = outputs.all()
        return {task: pick(found[task], wanted.rows_for(task, asked, x.device)) for task in asked.tasks}

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

    def prepare(self, images: Tensor) -> Tensor:
        """Normalise, and pad right and bottom with the mean colour to the backbone's multiple."""
        check_images(images)
        return prepared(images, self.mean, self.std, self.backbone.multiple)  # type: ignore[arg-type]

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
        probe = self.prepare(torch.rand(1, 3, side, side, device=self.device))
        check_sites(self.backbone, probe)

    # ---- modules of higher layers are imported on use -------------------------------------------------------------

    @checked
    def predict(
        self,
        picture: Picture,
        tasks: Sequence[str] | None = None,
        *,
        tile: Tile | None = "auto",
        overlap: Overlap | None = None,
        flip: bool = False,
        probabilities: bool = False,
    ) -> Prediction[Tensor, Task]:
        """Predict all tasks (or some) of one picture at its own size: see :func:`garnish.model.predict.predict`."""
        from garnish.model.predict import predict

        return predict(self, picture, tasks, tile, overlap, flip, probabilities)

    @checked
    def predict_many(
        self,
        pictures: object,
        tasks: Sequence[str] | None = None,
        *,
        every: Every = 1,
        batch: PassSize | None = None,
        probabilities: bool = False,
        tile: Tile | None = "auto",
        overlap: Overlap | None = None,
        flip: bool = False,
        failures: list[Failure] | None = None,
    ) -> Iterator[Prediction[Tensor, Task]]:
        """Predict a list, a folder, a pattern, a video or a generator of pictures, one after the other.

        See :func:`garnish.model.predict_many.predict_many`.
        """
        from garnish.model.predict_many import predict_many

        return predict_many(
            self,
            pictures,
            tasks,
            every=every,
            batch=batch,
            probabilities=probabilities,
            tile=tile,
            overlap=overlap,
            flip=flip,
            failures=failures,
        )

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
