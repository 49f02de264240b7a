"""Base of the streaming metrics: totals with counts in int64 and sums in float64, for any input dtype and device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from garnish.errors import OptionError
from garnish.reporting.detail import Detail


class Totals(Metric):
    """Base of this package's metrics: named totals that are summed over updates and over processes.

    The totals are on the metric's device; inputs may be on another. A device without float64 (MPS) cannot hold
    them: leave the metric on the CPU, where it is created.
    """

    def __init_subclass__(cls, **options: object) -> None:
        """Have ``update`` refuse predictions and targets of different numbers of pictures (:class:`OptionError`)."""
        super().__init_subclass__(**options)
        if "update" in vars(cls):
            cls.update = _of_same_pictures(vars(cls)["update"])  # type: ignore[method-assign]

    full_state_update = False
    is_differentiable = False

    def add_total(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Declare the total ``name``, a tensor of zeros of ``shape``."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def add(self, name: str, value: Tensor) -> None:
        """Add ``value`` to the total ``name``."""
        total = getattr(self, name)
        # First the device, then the dtype: the value's own device may have no float64.
        setattr(self, name, total + value.to(total.device).to(total.dtype))

    def details(self) -> tuple[Detail, ...]:
        """What the totals tell beside the metrics, as tables and drawings; by default nothing.

        Read only while the totals are those of all processes, as in ``compute``.
        """
        return ()


def _of_same_pictures(update: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(update)
    def checked(self: Totals, prediction: Tensor, target: Tensor, *args: Any, **options: Any) -> None:
        if len(prediction) != len(target):
            raise OptionError(
                f"metric: update: outputs of {len(prediction)} pictures, targets of {len(target)}; of a batch run each"
                " picture for the tasks that it has labels of: model(batch.images, batch.tasks_of_rows()), or give"
                " output[batch.where[task]]"
            )
        update(self, prediction, target, *args, **options)

    return checked


def exact(x: Tensor) -> Tensor:
    """``x`` in float64, moved to the CPU if its device has no float64."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def ratio_or_nan(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` in float64, NaN where the denominator is 0."""
    return numerator.double() / torch.where(denominator == 0, torch.nan, denominator.double())
