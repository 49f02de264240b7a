"""Procedural scenes in ten bands as a data set, whose task shows only outside red, green and blue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, final

import torch
from torchvision import tv_tensors

from garnish import registry
from garnish.checking.arguments import checked
from garnish.checking.bounds import Seed
from garnish.checking.plain_data import integers
from garnish.data.dataset import Sample
from garnish.data.picture_key import digest
from garnish.data.scenes.materials import BAND_NAMES, SPECTRA, render_bands
from garnish.data.scenes.render import RENDERER
from garnish.data.scenes.series import MOST_SCENES, SceneSide, Series
from garnish.pictures.bands import Bands
from garnish.tasks.task import Task

#: Version; increased when any pixel of a band beyond red, or any material, changes.
_MATERIALS = 1


@final
class MaterialScenes(Series):
    """A series of procedural scenes with the task ``material``: what each surface is made of, whatever its paint.

    Args:
        count: number of scenes.
        size: side of the square pictures, or (height, width), in pixels.
        seed: number of the series; series with different seeds share no scene.
        style: "pretrain" or "demo".
        bands: "ten": blue, green, red, three of the red edge, two of near and two of short-wave infrared; "rgb":
            ordinary pictures of the same scenes, which do not show what is asked.
        keep: keep each scene in memory once it is rendered.

    Raises:
        OptionError: an unknown style.
    """

    @checked
    def __init__(
        self,
        count: Annotated[int, integers(0, MOST_SCENES)],
        *,
        size: SceneSide | tuple[SceneSide, SceneSide] = 128,
        seed: Seed = 0,
        style: str = "demo",
        bands: Literal["ten", "rgb"] = "ten",
        keep: bool = False,
    ) -> None:
        super().__init__("materials", count, size, seed, style, keep=keep)
        self._bands = Bands(names=BAND_NAMES) if bands == "ten" else Bands()
        self._task: Task = registry.build("tasks", "Semantic", {"classes": list(SPECTRA)})

    @property
    def name(self) -> str:
        """Style and seed, for messages."""
        return f"{self.style} scenes of materials (seed {self.seed})"

    @property
    def bands(self) -> Bands:
        """Ten, or those of ordinary pictures."""
        return self._bands

    @property
    def tasks(self) -> Mapping[str, Task]:
        """``material`` alone."""
        return {"material": self._task}

    def render(self, index: int) -> Sample:
        """The bands of a scene and what its surfaces are made of."""
        scene, stored, ids = render_bands(self.seed, index, self.size, self.style)
        where = f"{self.style}-materials-{self.seed}-{index:06d}"
        if self.bands.is_rgb:
            pixels = torch.from_numpy(scene.image).permute(2, 0, 1).contiguous()
        else:
            pixels = torch.from_numpy(self.bands.values(stored, where))
        return Sample(
            tv_tensors.Image(pixels), {"material": tv_tensors.Mask(torch.from_numpy(ids.astype("int64")))}, where
        )

    def content(self, index: int) -> Mapping[str, str]:
        """Style, seed, size, index and bands, which determine the scene."""
        return {"scenes": str((self.style, self.seed, self.size, index, self.bands.names))}

    def key(self, index: int) -> str | None:
        """Digest of the versions of renderer and materials, and of what determines the scene."""
        self.check_index(index)
        return digest("materials", RENDERER, _MATERIALS, self.seed, index, self.sides, self.style, self.bands.names)
