"""A set of pictures and labels written as plain files, which spoils change and the doctor reads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Label:
    """Labels of one task.

    Attributes:
        kind: "ids", "mask" (0/255 regions), "lines" (0/255 edges), "depth" (16-bit millimetres) or "normals" (RGB).
        entry: the task in the description.
        classes: number of classes of ids.
        none: id that means "no label".
    """

    kind: str
    entry: Mapping[str, Any]
    classes: int = 2
    none: int = 255


@dataclass(frozen=True)
class Written:
    """``images/SPLIT/NAME.png`` and ``TASK/SPLIT/NAME.png`` below a root, and the tasks.

    Attributes:
        root: folder.
        tasks: task → its labels.
        pictures: (split, name), in this order.
    """

    root: Path
    tasks: Mapping[str, Label]
    pictures: Sequence[tuple[str, str]] = field(default_factory=list)

    @property
    def description(self) -> dict[str, Any]:
        """As ``garnish.data.folder`` takes it, with ``root`` beside it."""
        entries = {
            task: {**label.entry, "labels": f"{task}/{{split}}/{{name}}.png"} for task, label in self.tasks.items()
        }
        splits = {split: split for split in dict.fromkeys(split for split, _ in self.pictures)}
        return {"images": "images/{split}/*.png", "splits": splits, "tasks": entries}

    def file(self, folder: str, place: tuple[str, str]) -> Path:
        """File of a picture (folder "images") or of a task's label."""
        return self.root / folder / place[0] / f"{place[1]}.png"

    def read(self, folder: str, place: tuple[str, str]) -> np.ndarray:
        """(H, W) or (H, W, 3) as stored."""
        with Image.open(self.file(folder, place)) as opened:
            return np.array(opened)

    def write(self, folder: str, place: tuple[str, str], values: np.ndarray) -> None:
        """Write uint8 or uint16 as PNG, in place of what was there."""
        file = self.file(folder, place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # a link of the copy: the original stays
        Image.fromarray(values).save(file, compress_level=1)

    def copy(self, root: Path) -> Written:
        """The same set at another place, to be spoiled; files are hard links until they are written."""
        shutil.copytree(self.root, root, copy_function=lambda a, b: Path(b).hardlink_to(a))
        return replace(self, root=root)
