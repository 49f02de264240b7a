"""Maps of one picture, as a user wants them: decoded, painted, written.

Shape letters: H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from garnish.errors import DataError, GarnishError
from garnish.evaluating import evaluating
from garnish.finite import odd_rows, why_odd
from garnish.tasks import pictures
from garnish.tasks.sheet import draw_sheet
from garnish.tasks.task import Task

if TYPE_CHECKING:
    from garnish.model import Model


@dataclass(frozen=True, eq=False)
class Prediction:
    """All maps of one picture.

    Attributes:
        picture: (H, W, 3) uint8.
        maps: task → decoded map at the picture's own size: (H, W) uint8 ids, (H, W) float32 metres or probabilities,
            (3, H, W) float32 unit normals.
        tasks: task name → task.
        name: the picture's file name without suffix.
    """

    picture: np.ndarray
    maps: Mapping[str, Tensor]
    tasks: Mapping[str, Task]
    name: str = "picture"

    def __getitem__(self, task: str) -> Tensor:
        return self.maps[task]

    def painted(self) -> dict[str, np.ndarray]:
        """Task → (H, W, 3) uint8."""
        return {name: self.tasks[name].paint(decoded) for name, decoded in self.maps.items()}

    def save(self, path: str | Path) -> Path:
        """Write one contact sheet (the picture and every map in a row) as PNG; returns the file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        legend = {label: colour for task in self.maps for label, colour in self.tasks[task].legend().items()}
        draw_sheet([[("picture", self.picture), *self.painted().items()]], path, legend=legend)
        return path

    def write(self, folder: str | Path) -> list[Path]:
        """Write each map in its task's own file format, ``NAME_TASK.png`` and so on, and ``NAME_sheet.png``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = [self.tasks[t].write(m, folder / f"{self.name}_{t}") for t, m in self.maps.items()]
        return [*files, self.save(folder / f"{self.name}_sheet.png")]


def read_picture(picture: str | Path | Image.Image | Tensor) -> np.ndarray:
    """(H, W, 3) uint8 RGB, as data sets are read: see :func:`garnish.tasks.pictures.read_picture`.

    Raises:
        DataError: naming a file that is missing or cannot be read.
    """
    if isinstance(picture, Tensor):
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
            raise DataError(f"a picture tensor must be (3, H, W) uint8, got {tuple(picture.shape)} {picture.dtype}")
        return picture.permute(1, 2, 0).cpu().numpy()
    if isinstance(picture, Image.Image):
        rgb = pictures.to_rgb(picture, "picture")
    elif Path(picture).is_file():
        rgb = pictures.read_picture(Path(picture))
    else:
        raise DataError(f"{picture}: no such picture; check the path")
    return rgb.permute(1, 2, 0).numpy()


def predict(model: Model, picture: str | Path | Image.Image | Tensor, tasks: Sequence[str] | None = None) -> Prediction:
    """Run a model on one picture at its own size.

    Raises:
        DataError: a picture that cannot be read. OptionError: an unknown task.
        GarnishError: an output that is not finite, which decoding would turn into a map of some class.
    """
    pixels = read_picture(picture)
    name = Path(picture).stem if isinstance(picture, str | Path) else "picture"
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(model.device)
    with evaluating(model), torch.inference_mode():
        raw = model(images, tasks)
        for task in odd_rows(raw):
            which = picture if isinstance(picture, str | Path) else name
            raise GarnishError(f"{which}: the output of task {task!r} is not finite, {why_odd(model.all_tensors())}")
        maps = {t: model.tasks[t].decode(out.float())[0].cpu() for t, out in raw.items()}
    return Prediction(pixels, maps, dict(model.tasks), name)
