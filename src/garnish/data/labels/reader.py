"""What a reader of labels is: the options of a task's label files, how a file is opened, how its numbers are a target.

Shape letters: H W pixels, C channels of the target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from garnish.checking.arguments import Options
from garnish.checking.plain_data import Json
from garnish.errors import DataError, OptionError, suggest
from garnish.files.label_files import open_label, refuse_lossy
from garnish.targets.target import Target
from garnish.tasks.task import Task

_ORIENTATIONS = ("upright", "stored")


@dataclass(frozen=True, kw_only=True)
class Reader(Options, ABC):
    """One way of reading labels. Subclasses are frozen dataclasses; their fields are the options of data descriptions.

    Attributes:
        labels: templates of the file, with ``{name}`` and ``{split}``; the first that exists is read.
        orientation: "upright": labels fit the picture as it is shown, once each is turned by its own EXIF orientation;
            "stored": they fit the pixels as the picture's file holds them, and are turned as the picture is. null:
            upright, and files where picture and label differ are told.
    """

    #: What ``kind:`` in a description calls it.
    kind: ClassVar[str]
    #: The kind of target that it makes; tasks of this kind can use it.
    target: ClassVar[type[Target]]
    #: Whether it is taken where a description names no ``kind`` and several readers make the task's kind of target.
    default: ClassVar[bool] = False
    #: Option that makes it be taken, where it is given and no ``kind`` is.
    chosen_by: ClassVar[str | None] = None

    labels: tuple[str, ...]
    orientation: str | None = None

    def __post_init__(self) -> None:
        if self.orientation not in (None, *_ORIENTATIONS):
            given = str(self.orientation)
            raise OptionError(f"orientation: unknown orientation {given!r}{suggest(given, _ORIENTATIONS)}")

    @property
    def exact(self) -> bool:
        """Whether a number that is off by one means something else altogether: such files must not be lossy."""
        return False

    def check_task(self, task: Task) -> None:
        """Raise :class:`~garnish.errors.OptionError`, beginning with the option, where options do not fit the task."""
        return

    def resolved(self, task: Task) -> Mapping[str, Json]:
        """The options as they act, equal where two descriptions say the same; kept features and runs compare them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def load(self, file: Path, picture: str, size: tuple[int, int] | None) -> tuple[np.ndarray, int]:
        """What a label file holds of a picture, not yet a target.

        Args:
            file: the label file.
            picture: name of the picture, as it stands for ``{name}``.
            size: (H, W) of the picture; None where it cannot be read.

        Returns:
            The numbers (H, W) or (H, W, channels of the file), and the file's EXIF orientation, by which they are
            upright already unless ``orientation`` is "stored"; 1 where the format has none.

        Raises:
            DataError: a file that cannot be read.
        """
        raw, facts = open_label(file, upright=self.orientation != "stored")
        return raw, 1 if facts is None else facts.orientation

    @abstractmethod
    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """What :meth:`load` gave → the values of :attr:`target`: (H, W) int64 ids, else (C, H, W) float32; writeable.

        Args:
            raw: at least one number.
            file: named in messages.
            task: whose targets they are.

        Raises:
            DataError: numbers that the options do not explain; the message says which option would.
        """


def decode(raw: np.ndarray, reader: Reader, file: Path, task: Task) -> np.ndarray:
    """The target's values that a label file's numbers stand for: :meth:`Reader.decode`, of numbers that can be trusted.

    Raises:
        DataError: as that; no numbers at all; a lossy file where numbers must be exact.
    """
    if raw.size == 0:
        raise DataError(f"{file}: holds no pixels; write the label again")
    if reader.exact:
        refuse_lossy(file)
    return reader.decode(raw, file, task)
