"""Reader of class ids from the files of annotation tools.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np

from garnish.checking.bounds import ClassId
from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.shapes_rule import guessed_shapes
from garnish.data.labels.shape_file import ShapeFileReader
from garnish.errors import DataError, OptionError, shown, suggest
from garnish.output import logger
from garnish.targets.class_ids import ClassIds
from garnish.targets.target import IGNORE, Target
from garnish.tasks.task import Task

#: Codes of pixels without an object, and of those in crowds; others are the places of classes in the file's list.
_NONE, _CROWD = -1, -2

_log = logger(__name__)


@final
@dataclass(frozen=True, kw_only=True)
class ShapesReader(ShapeFileReader):
    """Class ids: each pixel has the class of the topmost object on it.

    Attributes:
        unlabelled: class of pixels without an object, or "ignore"; null: the class "background" if the task has it and
            the file does not, else they have no label, which is logged.
        map: name in the file → class of the task, or "ignore"; names that are not listed are the task's own.
        others: "ignore": classes of the file that the task does not have, and that ``map`` does not list, have no
            label; null: they are an error.
        overlap: "later" or "smaller" objects lie on top where the file states no order; null: the format's own.
    """

    kind: ClassVar[str] = "shapes"
    target: ClassVar[type[Target]] = ClassIds

    unlabelled: str | ClassId | None = None
    map: Mapping[Json, Json] | None = None
    others: Literal["ignore"] | None = None
    overlap: Literal["later", "smaller"] | None = None

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """Semantic with the classes of annotation files, and "background" where no object lies."""
        return guessed_shapes(evidence)

    def check_task(self, task: Task) -> None:
        """Raise OptionError for a class that the task does not have."""
        if self.map is not None and not self.map:
            raise OptionError("map: expected name in the file: class of the task, got {}")
        for name, wanted in (self.map or {}).items():
            _class_id(wanted, task, f"map: {shown(name)}: ")
        if self.unlabelled is not None:
            _class_id(self.unlabelled, task, "unlabelled: ")

    def check_file(self, file: Path, task: Task, pictures: Sequence[str]) -> None:
        """Raise DataError if objects of the file have classes that the task does not have, or as the base class."""
        super().check_file(file, task, pictures)
        held = self._opened(file).held
        if held.objects is not None:
            for name in held.objects:
                self._id(name, task, file, held.classes)
        self._of_rest(held.classes, task)

    def load(self, file: Path, picture: str, size: tuple[int, int] | None) -> tuple[np.ndarray, int]:
        """(H, W) int32 places of classes in the file's list, or their numbers if it has only these; -1: no object."""
        shapes, size = self._objects(file, picture, size)
        held = self._opened(file).held
        places = {name: place for place, name in enumerate(held.classes)}
        ids = np.full(size, _NONE, np.int32)
        layers = partial(self._layers, file=file, picture=picture, size=size)
        for shape, mask, (top, left) in self._from_below(shapes, self.overlap or held.overlap, layers):
            code = _CROWD
            if not (shape.crowd and self.crowd == "ignore"):
                code = places[shape.label] if places else _number(shape.label, file)
            ids[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = code
        return ids, 1

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(H, W) int64 class ids by the names of the classes."""
        names = self._opened(file).held.classes
        values, places = np.unique(raw, return_inverse=True)
        new = []
        for code in values.tolist():
            if code < 0:
                new.append(self._of_rest(names, task) if code == _NONE else IGNORE)
            else:
                new.append(self._id(names[code] if names else str(code), task, file, names))
        ids: np.ndarray = np.array(new, np.int64)[places.reshape(raw.shape)]
        return ids

    def _id(self, name: str, task: Task, file: Path, names: Iterable[str]) -> int:
        """The class id of a name in the file; 255: it has no label."""
        listed = {str(key): value for key, value in (self.map or {}).items()}
        if name in listed:
            return _class_id(listed[name], task, "map: ")
        if (found := _known(name, task)) is not None:
            return found
        if not names and name.isdigit() and int(name) < task.channels:
            return int(name)
        if self.others == "ignore":
            return IGNORE
        if task.label_names is None:
            told = f"the task has only a number of classes; write their names, such as `classes: [{name}, …]`"
        else:
            told = f"`map: {{{name}: CLASS}}` names one{suggest(name, task.label_names).split(' available:')[0]}"
            told += f" the task has {', '.join(task.label_names[:12])}; or write `others: ignore`"
        raise DataError(f"{file}: objects of class {shown(name)}, which is none of the task's; {told}")

    def _of_rest(self, names: tuple[str, ...], task: Task) -> int:
        """The id of pixels without an object."""
        if self.unlabelled is not None:
            return _class_id(self.unlabelled, task, "unlabelled: ")
        found = _known("background", task)
        if found is not None and "background" not in names:
            return found
        _tell(self.labels)
        return IGNORE


def _known(name: str, task: Task) -> int | None:
    """The id of a class by its name, None if the task has none of that name."""
    return task.label_names.index(name) if task.label_names and name in task.label_names else None


def _class_id(given: Json, task: Task, at: str) -> int:
    """The id of a class that a description names, by its name or its number; 255 for "ignore"."""
    if given == "ignore":
        return IGNORE
    if (
        isinstance(given, int)
        and not isinstance(given, bool)
        and task.label_names is None
        and 0 <= given < task.channels
    ):
        return given
    if (found := _known(str(given), task)) is None:
        raise OptionError(
            f"{at}unknown class {shown(given)}{suggest(str(given), (*(task.label_names or ()), 'ignore'))}"
        )
    return found


def _number(label: str, file: Path) -> int:
    """A class that the file has as a number."""
    if not (label.isdecimal() and label.isascii() and len(label) < 10):
        raise DataError(f"{file}: a class {shown(label)} in a file of numbers; correct the format's reader")
    return int(label)


@cache
def _tell(labels: tuple[str, ...]) -> None:
    """Log once for each set that pixels without an object have no label."""
    _log.warning(
        "%s: pixels without an object have no label; write `unlabelled: CLASS` if they are one of the classes",
        ", ".join(labels),
    )
