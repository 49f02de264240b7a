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
from garnish.data.dataset import DepthMap, NormalMap, Sample
from garnish.data.picture_key import digest
from garnish.data.scenes.render import CLASSES, RENDERER, render
from garnish.data.scenes.series import MOST_SCENES, SceneSide, Series
from garnish.errors import OptionError, shown, suggest
from garnish.tasks.task import Task

#: name of a task in a scene → (class of the task, its options beside ``classes``)
TASKS: dict[str, tuple[str, dict[str, object]]] = {
    "seg": ("Semantic", {}),
    "depth": ("Depth", {"max_metres": 10.0}),
    "normals": ("Normals", {}),
    "edges": ("Edges", {}),
    "saliency": ("Saliency", {}),
}


@final
class Scenes(Series):
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

    Example:
        >>> data = gn.Scenes(4, size=32, tasks=("seg", "depth"))
        >>> len(data), tuple(data[0].image.shape), list(data.tasks)
        (4, (3, 32, 32), ['seg', 'depth'])
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
        super().__init__("scenes", count, size, seed, style, keep=keep)
        self._wanted = tasks
        self._tasks: dict[str, Task] = {}

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

    def key(self, index: int) -> str | None:
        """Digest of the renderer's version, the seed, the scene's index, its size, its style and the tasks."""
        self.check_index(index)
        return digest("scenes", RENDERER, self.seed, index, self.sides, self.style, sorted(self._wanted))

    def render(self, index: int) -> Sample:
        """The labels that are wanted of a scene, with its picture."""
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
