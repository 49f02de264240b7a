"""Streaming metrics as totals: counts in int64, sums in float64, whatever the precision and device of what comes in."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Totals(Metric):
    """Base of this package's metrics: named totals that add up over updates and over processes.

    The totals stay where the metric is, and inputs may lie elsewhere. A backend without float64 (MPS) cannot hold
    them: leave the metric on the CPU there, as it is made.
    """

    full_state_update = False
    is_differentiable = False

    def add_total(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Declare the total ``name``, a tensor of zeros of ``shape``."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def add(self, name: str, value: Tensor) -> None:
        """Add ``value`` to the total ``name``."""
        total = getattr(self, name)
        # First the device, then the precision: the value's own device may have no float64.
        setattr(self, name, total + value.to(total.device).to(total.dtype))


def exact(x: Tensor) -> Tensor:
    """``x`` in float64, on the CPU where its device has no float64."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def ratio_or_nan(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` in float64, NaN where the denominator is 0."""
    return numerator.double() / torch.where(denominator == 0, torch.nan, denominator.double())
