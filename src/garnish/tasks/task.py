"""What a dense task is: target format and unit, loss, metric, how a prediction is decoded, painted and written.

Shape letters: B pictures, H W pixels, C output channels of the head, K entries of a sum vector.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from garnish.checking.arguments import Options
from garnish.errors import OptionError
from garnish.targets.target import Target

#: What an option is about, which decides what happens where the data of a task have another value than the model (see
#: :mod:`garnish.tasks.agreement`). "names": class names, compared as ``Task.label_names``. "labels": what labels mean
#: else, refused. "counted": which labels count, told. "metric": how it is measured, and "loss": how it is trained; the
#: model's is used, which is told where the data set their own. "work": how it is computed, which changes no number.
Role = Literal["names", "labels", "counted", "metric", "loss", "work"]


@dataclass(frozen=True, kw_only=True)
class Task(Options, ABC):
    """One dense task. Subclasses are frozen dataclasses; their fields are the options of recipes and bundles.

    The loss is computed in two steps so that it is the same number however a batch is split over processes:
    :meth:`sums` gives additive statistics of some pictures, :meth:`loss` turns their total into the loss.

    Attributes:
        weight: of this task in the sum of losses.
    """

    #: Whether a larger headline metric is better.
    higher_is_better: ClassVar[bool]
    #: The kind of its targets, one of :mod:`garnish.targets` or one's own.
    target: ClassVar[type[Target]]
    #: Option that holds a threshold → metric that chooses it, where the task has such.
    thresholds: ClassVar[Mapping[str, str]] = {}
    #: Option → what it is about; "counted" where it is not named, and "loss" for ``weight``.
    roles: ClassVar[Mapping[str, Role]] = {}

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise OptionError(f"{type(self).__name__}.weight: {self.weight}; set a finite value ≥ 0")

    @property
    @abstractmethod
    def headline(self) -> str:
        """Metric that selects the best checkpoint and enters Δm; a key of what ``metric().compute()`` gives."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of output maps the head must give."""

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the labels in the order of their ids; None where only their number is known, or there are none."""
        return tuple(self.legend()) or None

    @property
    def idle_options(self) -> tuple[str, ...]:
        """Options that were set and do nothing beside the others, each with why; told before training."""
        return ()

    @property
    def loss_weight(self) -> float:
        """Weight of this task in the sum of losses."""
        return self.weight

    @abstractmethod
    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Additive statistics of the loss.

        Args:
            prediction: (B, C, H, W) float, raw output of the head resized to the target's size.
            target: of the task's kind (:attr:`target`), with an axis of pictures: (B, H, W) int64 ids, else
                (B, …, H, W) float32. What :meth:`labelled` leaves out does not count.

        Returns:
            (K,) float32, differentiable in ``prediction``; the sums of two sets of pictures add up to those of both.
        """

    @abstractmethod
    def loss(self, sums: Tensor) -> Tensor:
        """() the loss of the pictures whose :meth:`sums` were added; 0 (not NaN) where no pixel has a label."""

    @abstractmethod
    def metric(self) -> Metric:
        """A new metric: ``update(prediction, target)`` as for :meth:`sums`; ``compute()`` a dict of () tensors by name.

        It streams (sums only), ignores what the target ignores, syncs over processes and holds ``headline``; values
        of which nothing was seen are NaN. Predictions and targets may lie on another device than the metric.
        """

    def with_thresholds(self, metrics: Mapping[str, float]) -> Self:
        """This task with the thresholds that its metrics chose on other pictures; as it is where they chose none."""
        found = {option: metrics.get(name, math.nan) for option, name in self.thresholds.items()}
        return dataclasses.replace(self, **{option: value for option, value in found.items() if math.isfinite(value)})

    def labelled(self, target: Tensor) -> Tensor:
        """Bool, the target's shape with one channel: where it holds a label; a batch of targets or one of them.

        What loss and metric leave out must be False here, whatever the file holds.
        """
        return self.target.labelled(target)

    def example(self, count: int, size: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
        """Valid targets at random, a label at every pixel, for plans and tests; see :meth:`Target.example`."""
        return self.target.example(count, self.channels, size, device)

    def outside(self, target: Tensor) -> Mapping[str, Tensor]:
        """What a single target measures and no label counts, for it lies outside the range of the task's options.

        Returns:
            Why, as words that follow "are", → (H, W) bool pixels. Empty where the task has no such range.
        """
        return {}

    def oddity(self, target: Tensor) -> str | None:
        """What is suspicious about a single valid target that has some label, as words that follow "labels"."""
        return self.target.oddity(target, self.labelled(target))

    @abstractmethod
    def check_target(self, target: Tensor, where: str) -> None:
        """Raise :class:`~garnish.errors.DataError`, naming ``where``, if a single target (no batch axis) is invalid."""

    @abstractmethod
    def decode(self, prediction: Tensor) -> Tensor:
        """Raw (B, C, H, W) → what the user wants: (B, H, W) uint8 ids, float32 metres, probabilities; (B, 3, H, W)."""

    @abstractmethod
    def paint(self, decoded: Tensor) -> np.ndarray:
        """A decoded map or a target of one picture (no batch axis) → (H, W, 3) uint8 RGB."""

    @abstractmethod
    def write(self, decoded: Tensor, path: Path) -> Path:
        """Write one decoded map in the task's file format to ``path`` plus the right suffix; returns the file."""

    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Label names and their colours, for pictures; empty where the map is continuous."""
        return {}


def to_uint8(image: Tensor) -> np.ndarray:
    """(3, H, W) float in [0, 1] → (H, W, 3) uint8."""
    scaled = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return scaled.permute(1, 2, 0).cpu().numpy()
