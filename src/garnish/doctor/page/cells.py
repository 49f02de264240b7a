"""Cells of pictures for the page: a picture and its painted labels side by side, small, as data URLs.

Shape letters: H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image
from torch import Tensor

from garnish.doctor.looked import Looked
from garnish.doctor.page.page_room import PageRoom
from garnish.drawing.map_files import picture_bytes
from garnish.errors import DataError, one_line
from garnish.reporting.html_page import data_url


@final
@dataclass(frozen=True)
class ShownCell:
    """One picture of a row.

    Attributes:
        title: name of a task, or "picture".
        url: data URL; None: there is nothing to show.
        words: why not, a line.
        coarse: whether it has so few pixels that they are best shown as squares.
    """

    title: str
    url: str | None
    words: str = ""
    coarse: bool = False


def cells_of(seen: Looked, tasks: Iterable[str], side: int, room: PageRoom) -> list[ShownCell]:
    """The picture, then its labels of some tasks.

    Args:
        seen: the picture.
        tasks: names of tasks of its set.
        side: longer side in pixels at most.
        room: what the data URLs may take; a cell without room says so.
    """
    made = [_picture(seen, side, room)]
    return made + [_label(seen, task, side, room) for task in tasks if task in seen.dataset.tasks]


def _picture(seen: Looked, side: int, room: PageRoom) -> ShownCell:
    try:
        image = Image.fromarray(np.ascontiguousarray(seen.pixels))
    except DataError as error:
        return ShownCell("picture", None, _reason(str(error), seen.file))
    image.thumbnail((side, side), Image.Resampling.BOX)
    return _cell("picture", image, picture_bytes(image, "JPEG"), "jpeg", side, room)


def _label(seen: Looked, task: str, side: int, room: PageRoom) -> ShownCell:
    if task not in seen.files:
        return ShownCell(task, None, "no label")
    target = seen.decoded(task)
    if target is None:
        return ShownCell(task, None, _reason(seen.problems().get(task, "cannot be read"), seen.files[task]))
    # painted as small as it is shown: a label of 8000 x 8000 pixels would take a gigabyte as floats
    step = max(1, math.ceil(max(target.shape[-2:]) / (2 * side)))
    try:
        painted = seen.task(task).paint(target.as_subclass(Tensor)[..., ::step, ::step])
    except Exception as error:  # a label that its task rejects, painted by a stranger's class
        return ShownCell(task, None, f"cannot be painted: {one_line(error, 120)}")
    image = Image.fromarray(np.ascontiguousarray(painted))
    scale = side / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.NEAREST)  # means of two classes would be a third one
    encoded = {kind: picture_bytes(image, kind.upper()) for kind in ("png", "jpeg")}
    # flat colours are smaller, and sharp, as PNG; depth and normals take five times as much
    kind = "png" if len(encoded["png"]) < 2 * len(encoded["jpeg"]) else "jpeg"
    return _cell(task, image, encoded[kind], kind, side, room)


def _reason(message: str, file: Path) -> str:
    """What is wrong, out of an error about a file; the finding beside it names the file and the remedy."""
    return one_line(message.removeprefix(f"{file}: ").partition("; ")[0], 120)


def _cell(title: str, image: Image.Image, data: bytes, kind: str, side: int, room: PageRoom) -> ShownCell:
    url = data_url(f"image/{kind}", data)
    if not room.take(len(url)):
        return ShownCell(title, None, "left out: the page has no room for more pictures")
    return ShownCell(title, url, coarse=max(image.size) < side / 2)
