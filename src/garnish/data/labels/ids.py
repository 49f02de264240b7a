"""Reader of class ids from id maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.data.labels.id_map import IdMapReader
from garnish.errors import DataError
from garnish.targets.class_ids import ClassIds
from garnish.targets.target import Target
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class IdsReader(IdMapReader):
    """Class ids from an id map: grey, palette, 16-bit or ``.npy``."""

    kind: ClassVar[str] = "ids"
    target: ClassVar[type[Target]] = ClassIds
    default: ClassVar[bool] = True

    @property
    def by_pixel(self) -> bool:
        """True."""
        return True

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(H, W) int64 class ids, not checked against the number of classes."""
        ids = self.mapped(self.raw_ids(raw, file), file)
        if (ids < 0).any():
            value = int(ids.min())
            raise DataError(
                f"{file}: holds id {value}; write `ignore: {value}` or list it under `map` in the data description"
            )
        return ids
