"""How far outputs of an exported file are from the model's: in the task's unit, and in labels.

Shape letters: N pictures, H W pixels, C channels.
"""

from __future__ import annotations

from typing import TypedDict, final

import torch
from torch import Tensor

from garnish.checking.finite import is_finite
from garnish.targets.class_ids import ClassIds
from garnish.targets.distances import Distances
from garnish.targets.unit_vectors import UnitVectors
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task

#: Kind of target → the unit in which maps are compared; others are compared as raw outputs.
_UNITS = {ClassIds: "logits", YesOrNo: "probability", Distances: "metres", UnitVectors: "degrees"}


class TaskAgreement(TypedDict):
    """How far a task's maps of the exported file are from those of the model, over all pictures compared.

    Attributes:
        unit: of ``largest`` and ``mean``: logits (of classes), probability, metres, degrees, or raw values.
        largest: largest difference of a pixel.
        mean: mean difference.
        relative: largest difference of raw outputs, over the largest magnitude of the model's: of all its maps, since a
            map of a single pixel may be near 0 by chance.
        equal_labels: share of pixels with the same label (class, or yes and no); None: a task without labels.
        pixels: how many pixels were compared.
    """

    unit: str
    largest: float
    mean: float
    relative: float
    equal_labels: float | None
    pixels: int


@final
class Agreement:
    """Sums of the differences of one task; :meth:`add` maps, then read :attr:`facts`."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.unit = next((unit for kind, unit in _UNITS.items() if issubclass(task.target, kind)), "raw")
        self._largest = self._raw = self._scale = self._total = 0.0
        self._values = self._pixels = self._equal = 0
        self._labelled = self.unit in ("logits", "probability")

    def add(self, want: Tensor, got: Tensor) -> None:
        """Compare raw outputs (N, C, H, W) of the model and of the exported file; what is not finite never agrees."""
        if want.shape != got.shape or not (is_finite(want) and is_finite(got)):
            self._largest = self._raw = float("inf")
            return
        raw = (want.double() - got.double()).abs()
        self._raw = max(self._raw, float(raw.amax()))
        self._scale = max(self._scale, float(want.abs().amax()))
        difference = raw if self.unit in ("logits", "raw") else self._in_unit(want, got)
        self._largest = max(self._largest, float(difference.amax()))
        self._total += float(difference.sum())
        self._values += difference.numel()
        self._pixels += want.shape[0] * want.shape[2] * want.shape[3]
        if self.unit == "logits":
            self._equal += int((self.task.decode(want) == self.task.decode(got)).sum())
        elif self.unit == "probability":
            self._equal += int(((want > 0) == (got > 0)).sum())

    def _in_unit(self, want: Tensor, got: Tensor) -> Tensor:
        one, other = self.task.decode(want).double(), self.task.decode(got).double()
        if self.unit != "degrees":
            return (one - other).abs()
        across = torch.linalg.cross(one, other, dim=1).norm(dim=1)
        return torch.rad2deg(torch.atan2(across, (one * other).sum(1)))  # accurate where arccos is not

    @property
    def facts(self) -> TaskAgreement:
        """What was found so far."""
        return {
            "unit": self.unit,
            "largest": self._largest,
            "mean": self._total / max(self._values, 1),
            "relative": self._raw / max(self._scale, torch.finfo(torch.float32).tiny),
            "equal_labels": self._equal / self._pixels if self._labelled and self._pixels else None,
            "pixels": self._pixels,
        }
