"""``Prediction``: the decoded maps of one picture, to index, paint or write to files; and reading the picture.

Shape letters: H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from garnish.checking.arguments import checked
from garnish.drawing.sheet import draw_sheet
from garnish.errors import DataError, OptionError, shown
from garnish.files import pictures
from garnish.tasks.task import Task


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

    picture: np.ndarray = field(repr=False)
    maps: Mapping[str, Tensor] = field(repr=False)
    tasks: Mapping[str, Task]
    name: str = "picture"

    def __getitem__(self, task: str) -> Tensor:
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


#: A picture: a file, a PIL image, a torch (3, H, W) uint8, or a numpy (H, W, 3) or grey (H, W) uint8.
Picture = str | Path | Image.Image | Tensor | np.ndarray


def picture_pixels(picture: Picture) -> np.ndarray:
    """(H, W, 3) uint8 RGB, as data sets are read: see :func:`garnish.files.pictures.read_picture`.

    Raises:
        DataError: a file that is missing or cannot be read, or an array of the wrong shape or dtype.
    """
    if isinstance(picture, Tensor):
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3 or picture.is_meta:
            got = f"{tuple(picture.shape)} {picture.dtype}"
            raise DataError(f"a picture tensor must be (3, H, W) uint8, got {got}{_converted(picture)}")
        return _some(picture.permute(1, 2, 0).cpu().numpy())
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)):
            raise DataError(
                f"a picture array must be (H, W, 3) RGB or (H, W) grey, uint8; got {picture.shape} {picture.dtype}"
                f"{_converted(picture)}"
            )
        grey = picture.ndim == 2
        return _some(np.repeat(picture[..., None], 3, axis=2) if grey else picture.copy())
    if isinstance(picture, Image.Image):
        if 0 in picture.size:
            raise DataError(f"the picture has no pixels: {picture.size[0]}x{picture.size[1]}")
        rgb = pictures.to_rgb(picture, "picture")
    elif Path(picture).is_file():
        rgb = pictures.read_picture(Path(picture))
    elif Path(picture).is_dir():
        raise DataError(
            f"{picture}: is a folder; one call a picture: give a file of it (garnish predict takes folders)"
        )
    else:
        raise DataError(f"{picture}: no such picture; check the path")
    return rgb


def _converted(given: Tensor | np.ndarray) -> str:
    """The code that converts an array into a valid picture, for the end of a message; empty if not known."""
    of_torch = isinstance(given, Tensor)
    is_float = given.is_floating_point() if isinstance(given, Tensor) else given.dtype.kind == "f"
    if not (is_float or str(given.dtype).endswith("uint8")) or (isinstance(given, Tensor) and given.is_meta):
        return ""
    shape, code = tuple(given.shape), "picture"
    if len(shape) == 4:
        shape, code = shape[1:], "picture[0]"
    channels, other = (0, -1) if of_torch else (-1, 0)
    if len(shape) == 3 and shape[channels] == 4:
        code += "[:3]" if of_torch else "[..., :3]"
    elif len(shape) == 3 and shape[channels] != 3 and shape[other] == 3:
        code += ".permute(2, 0, 1)" if of_torch else ".transpose(1, 2, 0)"
    elif (len(shape), *shape[channels:][:1]) != (3, 3) and (of_torch or len(shape) != 2):
        return ""
    if is_float:
        code = f"({code} * 255).round().{'to(torch.uint8)' if of_torch else 'astype(numpy.uint8)'}"
    several = " (one call a picture)" if given.ndim == 4 else ""
    return f"; give {code}{several}" + (" where 1 is white" if is_float else "")


def _some(pixels: np.ndarray) -> np.ndarray:
    """The (H, W, 3) picture itself; raises DataError if it has no pixels."""
    if not pixels.size:
        raise DataError(f"the picture has no pixels: {pixels.shape[1]}x{pixels.shape[0]}")
    return pixels
