"""``Prediction``: the decoded maps of one picture, to index, paint or write to files.

A model's maps are tensors, which its tasks paint and write; those of an exported model are arrays, for its decodings.

Shape letters: H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from garnish.checking.arguments import checked
from garnish.drawing.sheet import draw_sheet
from garnish.errors import OptionError, shown


class Showing(Protocol):
    """What turns decoded maps of one kind into colours and files: a task, or its decoding."""

    def paint(self, decoded: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""

    def write(self, decoded: Any, path: Path) -> Path:
        """Write a map to ``path`` plus its suffix; returns the file."""

    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Label names and their colours."""


Map = TypeVar("Map")
By = TypeVar("By", bound=Showing)


@dataclass(frozen=True, eq=False)
class Prediction(Generic[Map, By]):
    """All maps of one picture.

    Attributes:
        picture: (H, W, 3) uint8.
        maps: task → decoded map at the picture's own size: (H, W) uint8 ids, (H, W) float32 metres or probabilities,
            (3, H, W) float32 unit normals.
        tasks: task name → what paints and writes its map.
        name: the picture's file name without suffix.
    """

    picture: np.ndarray = field(repr=False)
    maps: Mapping[str, Map] = field(repr=False)
    tasks: Mapping[str, By]
    name: str = "picture"

    def __getitem__(self, task: str) -> Map:
        if not isinstance(task, str) or task not in self.maps:
            raise OptionError(f"no map of task {shown(task, 40)}; there are {', '.join(self.maps)}")
        return self.maps[task]

    def painted(self) -> dict[str, np.ndarray]:
        """Each map in colour: task → (H, W, 3) uint8."""
        return {name: self.tasks[name].paint(decoded) for name, decoded in self.maps.items()}

    @checked
    def save(self, path: str | Path) -> Path:
        """Write one contact sheet (the picture and every map in a row) as PNG; returns the file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        legend = {label: colour for task in self.maps for label, colour in self.tasks[task].legend().items()}
        draw_sheet([[("picture", self.picture), *self.painted().items()]], path, legend=legend)
        return path

    @checked
    def write(self, folder: str | Path) -> list[Path]:
        """Write each map in its task's own file format, ``NAME_TASK.png`` and so on, and ``NAME_sheet.png``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = [self.tasks[t].write(m, folder / f"{self.name}_{t}") for t, m in self.maps.items()]
        return [*files, self.save(folder / f"{self.name}_sheet.png")]
