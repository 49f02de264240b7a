"""Writing one picture of a data set and its labels into a plain folder."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image
from torch import Tensor

from garnish.data.conversion.label_forms import LabelForm
from garnish.data.folder import FolderDataset
from garnish.data.picture_reading import read_image
from garnish.drawing.colours import class_colours
from garnish.drawing.map_files import write_ids
from garnish.errors import DataError
from garnish.files.atomic import writing
from garnish.targets.class_ids import ClassIds


@final
@dataclass(frozen=True, eq=False)
class PlacedPicture:
    """One picture and where it goes.

    Attributes:
        data: the split that it belongs to.
        index: its index there.
        folder: of the split that is written.
        name: of its files there, without suffix.
    """

    data: FolderDataset
    index: int
    folder: Path
    name: str


def write_picture(
    place: PlacedPicture, forms: Mapping[str, LabelForm], folders: Mapping[str, str], link: bool, *, with_picture: bool
) -> tuple[int, set[str]]:
    """Write one picture and its labels: 1 if it was turned upright, and the tasks whose form cannot hold its label."""
    data, index = place.data, place.index
    files = data.picture_files(index)
    image, orientation = read_image(files, data.bands)
    turned = orientation != 1 and data.bands.is_rgb and len(files) == 1
    if with_picture:
        for number, file in enumerate(files, 1):
            kind = "images" if len(files) == 1 else f"images/{number}"
            to = place.folder / kind / (place.name + (".png" if turned else file.suffix))
            with writing(to, "", DataError):
                to.parent.mkdir(parents=True, exist_ok=True)
                if turned:
                    stream = io.BytesIO()
                    Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "PNG")
                    to.write_bytes(stream.getvalue())
                elif link:
                    _link(file, to)
                else:
                    shutil.copyfile(file, to)
    labels = data.labels(index, (image.shape[-2], image.shape[-1]), orientation)
    unfit = set()
    for task, form in forms.items():
        if task not in labels.files:
            continue
        target, entry = labels.target(task), data.description.tasks[task]
        entry.task.check_target(target, str(labels.files[task]))
        to = place.folder / folders[task] / (place.name + form.suffix)
        source = labels.files[task]
        if form.encode is None:
            raw = None
            fits = source.suffix == form.suffix and labels.own_orientation(task) == 1
        else:
            values: np.ndarray = target.as_subclass(Tensor).numpy()
            raw = form.written(values, entry, source)
            fits = raw is not None
        if not fits:
            unfit.add(task)
            continue
        with writing(to, "", DataError):
            to.parent.mkdir(parents=True, exist_ok=True)
            if raw is None:
                shutil.copyfile(source, to)
            elif form.suffix == ".npy":
                with to.open("wb") as stream_of_npy:
                    np.save(stream_of_npy, np.ascontiguousarray(raw))
            elif entry.task.target is ClassIds:
                write_ids(raw, class_colours(tuple(entry.task.legend())), to)
            else:
                Image.fromarray(raw).save(to, "PNG")
    return int(turned), unfit


def _link(file: Path, to: Path) -> None:
    real = file.resolve()
    try:
        to.hardlink_to(real)
    except OSError:  # another disk, or one without hard links
        to.symlink_to(real)
