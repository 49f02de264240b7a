"""Reader of edges: where the ids or colours of a label map change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.data.guessing.borders_rule import guessed_borders
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.labels.id_borders import id_borders
from garnish.data.labels.id_map import IdMapReader
from garnish.data.labels.planes import colour_codes, is_coloured
from garnish.targets.target import IGNORE, Target
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class BoundariesReader(IdMapReader):
    """Edges, two pixels wide, where the ids (or colours) of a file change (``from: boundaries`` means the same).

    A pixel is an edge if its left, right, upper or lower neighbour has another id. Ignored pixels, and pixels next to
    one that are not edges otherwise, have no label, as it is unknown whether they are edges.
    """

    kind: ClassVar[str] = "boundaries"
    target: ClassVar[type[Target]] = YesOrNo
    source: ClassVar[str | None] = "boundaries"

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """Edges between the ids of files that a folder of edges holds in place of lines."""
        return guessed_borders(evidence)

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(1, H, W) float32 in {0, 1, 255 = no label}."""
        coloured = self.packed is None and is_coloured(raw)
        ids = colour_codes(raw, file) if coloured else self.raw_ids(raw, file)
        if self.map is not None or self.offset:
            ids = self.mapped(ids, file)
            ignored = ids == IGNORE
        else:
            ignored = np.isin(ids, (*self.ignore, -1 if coloured else IGNORE))
        return id_borders(ids, ignored)
