"""Layout: base class of the layouts of published data sets, which a recipe names instead of describing them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from garnish.checking.arguments import Options
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, shown, suggest
from garnish.files.label_files import read_array
from garnish.registry import classes


@dataclass(frozen=True, kw_only=True)
class Layout(Options, ABC):
    """One published layout. Subclasses are frozen dataclasses; their fields are the options of recipes.

    A subclass returns from :meth:`described` what a user would write in a data description, and overrides
    :meth:`read` if the data set has a label format of its own. Every label file of a selected task must exist.

    Attributes:
        path: folder of the data set, or the parent of its folder with the published name.
        tasks: names of the tasks to use, or options to override by task; null: all tasks unchanged.
    """

    #: Name of the folder in the published archive.
    folder: ClassVar[str]
    #: Who publishes the set, and where.
    origin: ClassVar[str]
    #: Files and folders that together identify the data set.
    marks: ClassVar[tuple[str, ...]]

    path: str = "."
    tasks: Mapping[str, Json] | tuple[str, ...] | None = None

    @abstractmethod
    def described(self, root: Path) -> dict[str, Json]:
        """The keys ``images``, ``splits`` and ``tasks`` of a data description, paths relative to ``root``."""

    def read(self, task: str, file: Path) -> np.ndarray:
        """The raw values of a label file of a task, (H, W) or (H, W, C).

        Raises:
            DataError: a file that cannot be read or is not what the layout expects.
        """
        return read_array(file)

    @classmethod
    def recognised(cls, folder: Path) -> bool:
        """Whether a folder holds the data set, by its marks."""
        return all((folder / mark).exists() for mark in cls.marks)

    def root(self, base: Path) -> Path:
        """``path`` relative to ``base``, or the published folder in it if there is one."""
        given = base / self.path
        inner = given / self.folder
        return inner if inner.is_dir() else given

    def chosen(self, known: Mapping[str, Mapping[str, Json]], where: str) -> dict[str, dict[str, Json]]:
        """The described tasks that ``tasks`` selects, with the options it overrides.

        Raises:
            OptionError: no task, an unknown task, or options that are not a mapping.
        """
        if self.tasks is None:
            return {name: dict(entry) for name, entry in known.items()}
        if isinstance(self.tasks, Mapping):
            wanted = dict(self.tasks)
        else:
            wanted = dict.fromkeys(name.strip() for text in self.tasks for name in text.split(","))
        if not wanted:
            raise OptionError(f"{where}.tasks: names no task; available: {', '.join(known)}")
        found = {}
        for name, options in wanted.items():
            if name not in known:
                raise OptionError(f"{where}.tasks: unknown task {shown(name)}{suggest(str(name), known)}")
            if not isinstance(options, Mapping | None):
                raise OptionError(f"{where}.tasks.{name}: {options!r}; write options such as {{weight: 2}}, or nothing")
            found[str(name)] = {**known[name], **(options or {})}
        return found


def published_layout(path: Path) -> str | None:
    """Name of the published layout that a folder has, None if it has none."""
    known: Mapping[str, type[Layout]] = classes("layouts") if path.is_dir() else {}
    return next((name for name, layout in known.items() if layout.recognised(path)), None)
