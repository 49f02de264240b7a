"""A held label as a target of its task, by the readers that read label files.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from garnish.checking.plain_data import Json
from garnish.data.held.values import file_of, lossy_of, numbers_of_value
from garnish.data.labels.choosing import chosen_reader, reader_of
from garnish.data.labels.reader import Reader, decode_numbers
from garnish.errors import DataError, OptionError
from garnish.files.label_files import label_numbers, open_label, refuse_lossy
from garnish.targets.class_ids import ClassIds
from garnish.tasks.task import Task

#: What stands for a template, which labels in memory have not.
_IN_MEMORY = "{name}"


def held_reader(given: Mapping[str, Json], task: Task, name: str) -> Reader:
    """The reader of a task's labels with its options, as ``tasks`` of a data description has them.

    Raises:
        OptionError: an option that the reader does not take, or a reader of files of annotation tools.
    """
    where = f"dataset: labels.{name}"
    if "labels" in given:
        raise OptionError(f"{where}.labels: names files, and these labels are held; columns= says where they stand")
    cls = chosen_reader(given, type(task), where)
    if cls.shared:
        raise OptionError(f"{where}: {cls.kind!r} reads files of annotation tools; give maps, or use gn.folder")
    return reader_of({**given, "labels": _IN_MEMORY}, task, where)


def target_of(value: Any, task: Task, reader: Reader, where: str, name: str, orientation: int) -> Tensor:
    """The target of a task, in the tensor type of its kind, checked by the task.

    Args:
        value: a map of Pillow's; an array or tensor (H, W), (1, H, W) or (H, W, 1), of normals (3, H, W) or (H, W, 3);
            a path of a label file.
        task: whose target it is.
        reader: of :func:`held_reader`.
        where: the item, for messages.
        name: of the task.
        orientation: EXIF orientation of the picture, by which it was turned.

    Raises:
        DataError: values that the reader or the task rejects; a label that may lie otherwise than its picture.
    """
    place = f"{where}: label of task {name!r}"
    try:
        raw, own = _raw(value, reader, place)
        if own != orientation and reader.orientation is None:
            raise DataError(
                f"{place}: has EXIF orientation {own}, its picture {orientation}; write `orientation: stored` if they"
                " lie alike as they are stored, `orientation: upright` if the label fits the upright picture"
            )
        _refuse_usual_slips(raw, task, place)
        values = decode_numbers(raw, reader, Path(place), task)
        target = task.target.of(values, orientation if reader.orientation == "stored" else 1)
        task.check_target(target, place)
    except DataError as error:
        told = str(error)
        if "`" not in told:
            raise
        told = told.replace(" in the data description", "").replace(
            "write `task: RelativeDepth`", "make it gn.RelativeDepth"
        )
        raise DataError(f"{told} (such options stand in labels={{{name!r}: {{…}}}})") from error
    return target


def _raw(value: Any, reader: Reader, where: str) -> tuple[np.ndarray, int]:
    """The numbers that a reader decodes, and the EXIF orientation of what held them."""
    upright, colours = reader.orientation != "stored", reader.palette_colours
    if (file := file_of(value, where, label=True)) is not None:
        if reader.exact:
            refuse_lossy(file)
        raw, facts = open_label(file, colours=colours, upright=upright)
        return raw, 1 if facts is None else facts.orientation
    if isinstance(value, Image.Image):
        if reader.exact and (reason := lossy_of(value)):
            raise DataError(f"{where}: ids and colours are changed by {reason} compression; save labels as PNG")
        return label_numbers(value, where, colours=colours, upright=upright)
    if isinstance(value, int | float | np.number):
        raise DataError(f"{where}: is one number, {value}, for the whole picture; dense tasks need a map, (H, W)")
    numbers = numbers_of_value(value, where)
    if numbers is None:
        raise DataError(f"{where}: is a {type(value).__name__}; give a map of Pillow, an array or a tensor")
    if numbers.ndim not in (2, 3) or not numbers.size:
        raise DataError(f"{where}: is of shape {tuple(numbers.shape)}; give one number per pixel, (H, W)")
    return numbers, 1


def _refuse_usual_slips(raw: np.ndarray, task: Task, where: str) -> None:
    """Raise DataError for maps of classes that were changed on their way, which might pass for others."""
    if task.target is not ClassIds:
        return
    if raw.dtype.kind == "f":
        high = float(np.max(raw, initial=0, where=np.isfinite(raw)))
        if 0 < high <= 1:
            raise DataError(
                f"{where}: holds floats up to {high:.3g}; ToTensor divides ids by 255: use PILToTensor for labels, or"
                " give the ids as whole numbers"
            )
        if raw.ndim == 2 or 1 in (raw.shape[0], raw.shape[-1]):
            raise DataError(
                f"{where}: holds {raw.dtype}, and ids are whole numbers; give target.long() if they are ids"
            )
    if raw.ndim == 3 and raw.shape[0] == task.channels and raw.shape[0] not in (1, 3) and raw.shape[-1] not in (1, 3):
        raise DataError(f"{where}: has one map for each of {task.channels} classes; give their ids, target.argmax(0)")
