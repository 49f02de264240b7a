"""Base of the streaming metrics: totals with counts in int64 and sums in float64, for any input dtype and device."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Totals(Metric):
    """Base of this package's metrics: named totals that are summed over updates and over processes.

    The totals are on the metric's device; inputs may be on another. A device without float64 (MPS) cannot hold
    them: leave the metric on the CPU, where it is created.
    """

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


def exact(x: Tensor) -> Tensor:
    """``x`` in float64, moved to the CPU if its device has no float64."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def ratio_or_nan(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` in float64, NaN where the denominator is 0."""
    return numerator.double() / torch.where(denominator == 0, torch.nan, denominator.double())
