"""Procedural scenes as a data set: pictures with exact labels of five tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, final

import torch
from torchvision import tv_tensors

from garnish import registry
from garnish.checking.arguments import checked
from garnish.checking.bounds import Seed
from garnish.checking.plain_data import integers
from garnish.data.dataset import Dataset, DepthMap, NormalMap, Sample
from garnish.data.picture_key import digest
from garnish.data.scenes.composition import STYLES
from garnish.data.scenes.render import CLASSES, RENDERER, render
from garnish.errors import OptionError, shown, suggest
from garnish.tasks.task import Task

#: Scenes of a series that a run goes through: the order of an epoch is kept in memory.
MOST_SCENES = 10**7

#: Sides of a scene: at 4,096² rendering takes some gigabytes.
SceneSide = Annotated[int, integers(8, 4_096)]

#: name of a task in a scene → (class of the task, its options beside ``classes``)
TASKS: dict[str, tuple[str, dict[str, object]]] = {
    "seg": ("Semantic", {}),
    "depth": ("Depth", {"max_metres": 10.0}),
    "normals": ("Normals", {}),
    "edges": ("Edges", {}),
    "saliency": ("Saliency", {}),
}


@final
class Scenes(Dataset):
    """A series of procedural scenes with labels of all or some of the five tasks.

    Args:
        count: number of scenes.
        size: side of the square pictures, or (height, width).
        seed: number of the series; series with different seeds share no scene.
        style: "pretrain" or "demo".
        tasks: names from ``TASKS``.
        keep: keep each scene in memory once it is rendered (about 0.6 MB at 128 × 128 with all tasks).

    Raises:
        OptionError: an unknown task or style.
    """

    @checked
    def __init__(
        self,
        count: Annotated[int, integers(0, MOST_SCENES)],
        *,
        size: SceneSide | tuple[SceneSide, SceneSide] = 128,
        seed: Seed = 0,
        style: str = "demo",
        tasks: tuple[str, ...] = tuple(TASKS),
        keep: bool = False,
    ) -> None:
        for name in tasks:
            if name not in TASKS:
                raise OptionError(f"scenes: unknown task {shown(name)}{suggest(name, TASKS)}")
        if style not in STYLES:
            raise OptionError(f"scenes: unknown style {shown(style)}{suggest(style, STYLES)}")
        self.count, self.size, self.seed, self.style, self.keep = count, size, seed, style, keep
        self._wanted = tasks
        self._tasks: dict[str, Task] = {}
        self._kept: dict[int, Sample] = {}

    @property
    def name(self) -> str:
        """Style and seed, for messages."""
        return f"{self.style} scenes (seed {self.seed})"

    def content(self, index: int) -> Mapping[str, str]:
        """Style, seed, size, index and tasks, which determine the scene."""
        return {"scenes": str((self.style, self.seed, self.size, index, sorted(self._wanted)))}

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name; built on first use."""
        if not self._tasks:
            for name in self._wanted:
                kind, options = TASKS[name]
                extra = {"classes": list(CLASSES[self.style])} if kind == "Semantic" else {}
                self._tasks[name] = registry.build("tasks", kind, {**options, **extra})
        return self._tasks

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        if index in self._kept:
            return self._kept[index]
        sample = self._make(index)
        if self.keep:
            self._kept[index] = sample
        return sample

    @property
    def checks_labels(self) -> bool:
        """True: rendered labels are always valid."""
        return True

    def key(self, index: int) -> str | None:
        """Digest of the renderer's version, the seed, the scene's index, its size, its style and the tasks."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        return digest("scenes", RENDERER, self.seed, index, size, self.style, sorted(self._wanted))

    def _make(self, index: int) -> Sample:
        scene = render(self.seed, index, self.size, self.style)
        maps: dict[str, tv_tensors.TVTensor] = {
            "seg": tv_tensors.Mask(torch.from_numpy(scene.ids).long()),
            "depth": DepthMap(torch.from_numpy(scene.depth)[None]),
            "normals": NormalMap(torch.from_numpy(scene.normals).permute(2, 0, 1).contiguous()),
            "edges": tv_tensors.Mask(torch.from_numpy(scene.edges).float()[None]),
            "saliency": tv_tensors.Mask(torch.from_numpy(scene.saliency).float()[None]),
        }
        image = tv_tensors.Image(torch.from_numpy(scene.image).permute(2, 0, 1).contiguous())
        return Sample(image, {name: maps[name] for name in self._wanted}, f"{self.style}-{self.seed}-{index:06d}")
