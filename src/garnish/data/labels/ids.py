"""Reader of class ids from id maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.ids_rule import guessed_ids
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

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """Semantic from ids of few regions: from 0 or 1, with gaps, with a "no label" that outlines."""
        return guessed_ids(evidence)

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(H, W) int64 class ids, not checked against the number of classes."""
        ids = self.mapped(self.raw_ids(raw, file), file)
        if (value := int(ids.min())) < 0:
            raise DataError(
                f"{file}: holds id {value}; write `ignore: {value}` or list it under `map` in the data description"
            )
        return ids
