"""Task: base class of dense tasks, with target, loss, metric, and how a prediction is decoded.

How a decoded map is painted and written is for its decoding (:mod:`garnish.decodings`), which needs no torch.

Shape letters: B pictures, H W pixels, C output channels of the head, K entries of a sum vector.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from garnish.checking.arguments import Options
from garnish.checking.bounds import Weight
from garnish.decodings.decoding import Decoding
from garnish.errors import OptionError
from garnish.targets.target import Target

#: Role of an option, which decides what happens if data and model have different values (see
#: :mod:`garnish.tasks.agreement`). "names": class names, compared as ``Task.label_names``. "labels": meaning of labels
#: otherwise; refused. "counted": which labels count; reported. "metric", "loss": how it is measured or trained; the
#: model's value is used, with a note if the data set their own. "work": how it is computed, without effect on results.
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
    #: The kind of its targets, one of :mod:`garnish.targets` or your own.
    target: ClassVar[type[Target]]
    #: Under which of the Hub's kinds of models its maps are looked for; None: it has none for them.
    pipeline_tag: ClassVar[str | None] = None
    #: Option that holds a threshold → metric that chooses its value, for tasks with thresholds.
    thresholds: ClassVar[Mapping[str, str]] = {}
    #: Option → its role; "counted" for options that are not listed, and "loss" for ``weight``.
    roles: ClassVar[Mapping[str, Role]] = {}

    weight: Weight = 1.0

    def __post_init__(self) -> None:
        if self.weight < 0:  # a subclass may annotate its weight anew, without bounds
            raise OptionError(f"{type(self).__name__}.weight: {self.weight}; set 0 or more")
        own = type(self)
        if own.decoding is Task.decoding and (own.paint is Task.paint or own.write is Task.write):
            raise OptionError(
                f"{own.__name__}: nothing says how its maps are painted and written; give the class a `decoding`, or"
                " `paint` and `write`"
            )

    @property
    @abstractmethod
    def headline(self) -> str:
        """Metric that selects the best checkpoint and enters Δm; a key of the result of ``metric().compute()``."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of output channels C of the head."""

    @property
    def decoding(self) -> Decoding | None:
        """What the raw output means where there is no torch; None: only this class knows, so it cannot be exported.

        A class variable, or a property of the options. :meth:`decode` gives the same map, on the model's device.
        """
        return None

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the labels in the order of their ids; None if only their number is known, or there are none."""
        return tuple(self.legend()) or None

    @property
    def idle_options(self) -> tuple[str, ...]:
        """Options that were set but have no effect, each with the reason; reported before training."""
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
            target: batch of targets of the task's kind (:attr:`target`): (B, H, W) int64 ids, else (B, …, H, W)
                float32. Pixels that :meth:`labelled` leaves out do not count.

        Returns:
            (K,) float32, differentiable in ``prediction``; the sums of two sets of pictures add up to those of both.
        """

    @abstractmethod
    def loss(self, sums: Tensor) -> Tensor:
        """() the loss of the pictures whose :meth:`sums` were added; 0 (not NaN) where no pixel has a label."""

    @abstractmethod
    def metric(self) -> Metric:
        """A new metric: ``update(prediction, target)`` as for :meth:`sums`; ``compute()`` a dict of () tensors by name.

        It streams (sums only), skips pixels without a label, syncs over processes and includes ``headline``; values
        without any data are NaN. Predictions and targets may be on another device than the metric.
        """

    def metric_with_details(self) -> Metric:
        """As :meth:`metric`, with the totals that its ``details`` need besides; the metrics are the same numbers.

        By default :meth:`metric`, whose own totals may tell enough. Other totals go here and not there, since those of
        ``metric`` are kept picture by picture by comparisons.
        """
        return self.metric()

    def with_thresholds(self, metrics: Mapping[str, float]) -> Self:
        """This task with the thresholds that its metrics chose on other pictures; unchanged if they chose none."""
        found = {option: metrics.get(name, math.nan) for option, name in self.thresholds.items()}
        return dataclasses.replace(self, **{option: value for option, value in found.items() if math.isfinite(value)})

    def labelled(self, target: Tensor) -> Tensor:
        """Bool, the target's shape with one channel: where there is a label; for a single target or a batch.

        Pixels that loss and metric leave out must be False here.
        """
        return self.target.labelled(target)

    def example(self, count: int, size: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
        """Random valid targets with a label at every pixel, for plans and tests; see :meth:`Target.example`."""
        return self.target.example(count, self.channels, size, device)

    def outside(self, target: Tensor) -> Mapping[str, Tensor]:
        """Pixels of a single target whose measured value is outside the task's range, so that they have no label.

        Returns:
            Reason, as words that follow "are", → (H, W) bool pixels. Empty if the task has no such range.
        """
        return {}

    def oddity(self, target: Tensor) -> str | None:
        """What is suspicious about a single valid target with labels, as words that follow "labels"; None: nothing."""
        return self.target.oddity(target, self.labelled(target))

    @abstractmethod
    def check_target(self, target: Tensor, where: str) -> None:
        """Raise :class:`~garnish.errors.DataError`, naming ``where``, if a single target (no batch axis) is invalid."""

    @abstractmethod
    def decode(self, prediction: Tensor) -> Tensor:
        """Raw output (B, C, H, W) → (B, H, W) uint8 ids, float32 metres or probabilities; (B, 3, H, W) unit vectors."""

    def paint(self, decoded: Tensor) -> np.ndarray:
        """A decoded map or a target of one picture (no batch axis) → (H, W, 3) uint8 RGB, by the :attr:`decoding`."""
        assert self.decoding is not None, "a task without one paints its maps itself"
        return self.decoding.paint(_as_array(decoded))

    def write(self, decoded: Tensor, path: Path) -> Path:
        """Write one decoded map to ``path`` plus the right suffix, by the :attr:`decoding`; returns the file."""
        assert self.decoding is not None, "a task without one writes its maps itself"
        return self.decoding.write(_as_array(decoded), path)

    @cached_property
    def counted_classes(self) -> tuple[str, ...]:
        """Names of the classes whose pixels are counted, in the order of their values; empty for quantities."""
        return self.target.classes(tuple(self.legend()), self.channels)

    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Label names and their colours, for pictures; empty where the map is continuous."""
        return {} if self.decoding is None else self.decoding.legend()


def _as_array(values: Tensor) -> np.ndarray:
    """A map as NumPy has it; floats as float32, for NumPy lacks bfloat16."""
    values = values.detach()
    array: np.ndarray = (values.float() if values.is_floating_point() else values).cpu().numpy()
    return array
