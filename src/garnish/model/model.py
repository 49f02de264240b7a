"""``Model``: one frozen backbone, the adapters of its owners, a head per task; pictures in, ``{task: tensor}`` out.

Shape letters: I pictures, n pictures that ask for a task, H W pixels, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.backbones.build import backbone as build_backbone
from garnish.checking.arguments import checked
from garnish.checking.bounds import Size
from garnish.checking.plain_data import Json
from garnish.decodings.prediction import Prediction
from garnish.engine.adapter import Method
from garnish.engine.attach import check_sites
from garnish.engine.compiled import CompiledTrunk, compile_module
from garnish.engine.input_pictures import check_tensor, prepared
from garnish.engine.maps import pick
from garnish.engine.shared_passes import Wanted
from garnish.engine.trunk_start import TrunkState
from garnish.errors import OptionError
from garnish.heads.head import Head
from garnish.model.decoders import Outputs, check_decodes, decode_maps, needed
from garnish.model.given_picture import Picture
from garnish.model.head_channels import check_outputs
from garnish.model.input_size import SizeRule
from garnish.model.inputs import Inputs
from garnish.model.served import Served
from garnish.model.trunk_passes import TrunkPasses
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands
from garnish.pictures.given_bands import Extra
from garnish.tasks.task import Task
from garnish.tiles.tiling import Overlap, Tile

#: What PEFT's models can do, and what does the same here.
_ELSEWHERE = {
    "disable_adapter": "the trunk without adapters is model.backbone(model.prepare(images), ())",
    "get_nb_trainable_parameters": "model.report() counts the parameters",
    "load_adapter": "model.load(bundle) adds a bundle's tasks",
    "merge_and_unload": "gn.merge(model, folder) writes the merged model",
    "print_trainable_parameters": "print(model) and model.report() count the parameters",
    "save_pretrained": "model.save(folder) writes a bundle, gn.export_peft(model, folder) what PEFT reads",
}


@checked
def adapt(
    backbone: Backbone | nn.Module,
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
        backbone: a fresh trunk of :func:`garnish.backbone`, which the model takes over; or a model of timm or
            transformers, of which a trunk is made (it stays as it is).
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

    Example:
        >>> tasks = {"seg": gn.Semantic(classes=3), "depth": gn.Depth()}
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), tasks, gn.SegFormerHead(channels=16))
        >>> list(model.tasks)
        ['seg', 'depth']
    """
    if not isinstance(backbone, Backbone):
        backbone = build_backbone(backbone)
    if backbone.is_adapted:
        raise OptionError(
            f"{backbone.name} is adapted already; build a fresh one with garnish.backbone, or use model.add"
        )
    model = Model(backbone)
    model.add(method, tasks, head, bands=bands, statistics=statistics, extra=extra)
    return model


class Model(TrunkPasses):
    """Backbone, adapters and heads. Make one with :func:`adapt` or :func:`garnish.load`.

    Any number of threads may run one model at once, even while tasks are added and removed: a pass uses the tasks that
    existed when it began. Mode and device must not change meanwhile.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> maps = model.eval().predict(gn.Scenes(1, size=32)[0].image)
        >>> tuple(maps["depth"].shape)
        (32, 32)
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
            images: (I, 3, H, W) float in [0, 1] and not normalised, or uint8 in 0 … 255; any H and W from 1. Of tasks
                with bands of their own (I, C, H, W): floats of ``Bands.values``, NaN where there are no data, or
                integers as files hold.
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
        check_decodes(now.decoders, asked.tasks)
        wanted = asked.with_needed(lambda names: needed(now.decoders, names))
        inputs = Inputs(images, now, wanted.tasks, self.mean, self.std, self.backbone.multiple)  # type: ignore[arg-type]
        if isinstance(images.shape[0], int) and not images.shape[0]:  # reshapings of trunks cannot tell its sizes
            like: Tensor = self.mean  # type: ignore[assignment]
            return {task: like.new_zeros(0, now.tasks[task].channels, *size) for task in asked.tasks}
        self._look(images, inputs)
        outputs = Outputs(now.decoders, self.backbone, size)
        for step in self._passes(wanted, now, inputs, device):
            outputs.read(self._run(step, images if start is not None else inputs.of(step.present[0]), start))
        found = outputs.all()
        check_outputs(now.decoders, now.tasks, found)
        return {task: pick(found[task], wanted.rows_for(task, asked, device)) for task in asked.tasks}

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

    # ---- its parts and tensors ------------------------------------------------------------------------------

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
        """Predict all tasks (or some) of one picture, at its own size: see :func:`garnish.model.predict.predict`.

        Of other bands than RGB, a file, an array (H, W, C) and a tensor (C, H, W) of whole numbers hold the numbers of
        a file, whatever their type; a tensor (C, H, W) of floats what ``Bands.values`` makes of these.
        """
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

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        metrics: Mapping[str, Mapping[str, float]] | None = None,
        metrics_rounding: Mapping[str, Mapping[str, float]] | None = None,
        dtype: Literal["float16", "float32"] = "float16",
        tasks: Sequence[str] | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> Path:
        """Write a bundle; float tensors are rounded to float16 unless ``dtype="float32"``.

        See :func:`garnish.bundles.bundle.save`.
        """
        from garnish import save

        more = {"metrics": metrics, "metrics_rounding": metrics_rounding, "extra": extra}
        return save(self, path, dtype=dtype, tasks=tasks, **more)

    if not TYPE_CHECKING:  # type checkers would take every name

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError as error:
                if name not in _ELSEWHERE:
                    raise
                raise AttributeError(f"Model has no {name}; {_ELSEWHERE[name]}") from error

    @checked
    def load(self, path: str | Path, *, names: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """Add the tasks of a bundle to the existing ones, under other names if ``names`` has some; return their names.

        Other threads may run passes meanwhile. See :func:`garnish.bundles.bundle.load_into`.
        """
        from garnish.bundles.bundle import load_into

        return load_into(self, path, names=names)
