"""Depth task: metres along the camera's axis (or along the ray, if the labels are so), one number per pixel.

Shape letters: B pictures, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from garnish.checking.bounds import Metres
from garnish.decodings.decoding import Decoding
from garnish.decodings.softplus_depth import SOFTPLUS_UNIT, SoftplusDepth
from garnish.errors import DataError, OptionError
from garnish.reporting.detail import Detail
from garnish.reporting.number_tables import Bins
from garnish.targets.distances import Distances
from garnish.targets.target import Target
from garnish.tasks.metrics.totals import Totals, exact, ratio_or_nan
from garnish.tasks.task import Role, Task

#: What renderings are stretched to: white, as a share or as a level of 8 or 16 bits.
_WHITE = (1.0, 255.0, 65535.0)
#: Intervals of equal width of the range of depth, in which errors are told.
DISTANCES = 10
#: Share of labels at exactly ``max_metres`` above which they are suspicious.
_PILE = 0.01


@final
@dataclass(frozen=True, kw_only=True)
class Depth(Task):
    """Metres. A target has a label where ``min_metres`` ≤ target ≤ ``max_metres``, and none elsewhere (0, inf).

    Predictions are clamped to this range, so loss and metrics count only labels that a prediction can equal; sky at a
    file's largest value has none. The field does likewise: BTS, AdaBins and Monodepth2 mask KITTI to 1e-3 < gt < 80 and
    NYU to 1e-3 < gt < 10, Depth Anything V2 to min ≤ gt ≤ max. The former differ from ours for labels of exactly
    ``max_metres``, as in depth that was clipped there: list that value as ``invalid``. ``garnish check`` reports the
    share of values outside the range, and labels that pile up at its end.

    The head's output z means ``max_metres/4 · softplus(z + ln(e − 1))`` metres. So z = 0, where heads start, is a
    quarter of the range; z of a few units spans it; and the gradient of L1 in z stays near its full size from there to
    the far end, where a scaled sigmoid would saturate, while near 0 it shrinks with the depth itself.

    Loss: L1 in metres, mean over labelled pixels.

    Attributes:
        max_metres: largest depth; predictions are clamped to it, labels beyond it do not count, and it sets the
            colour scale of depth pictures.
        min_metres: smallest depth; predictions are clamped to it, which keeps logarithms finite, and labels below it
            do not count.

    Example:
        >>> gn.Depth(max_metres=10).headline
        'rmse'
    """

    headline: ClassVar[str] = "rmse"  # in metres
    channels: ClassVar[int] = 1
    higher_is_better: ClassVar[bool] = False
    target: ClassVar[type[Target]] = Distances
    pipeline_tag: ClassVar[str | None] = "depth-estimation"
    roles: ClassVar[Mapping[str, Role]] = {"max_metres": "counted", "min_metres": "counted"}

    max_metres: Metres = 10.0
    min_metres: Metres = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.min_metres < self.max_metres:
            raise OptionError(
                f"Depth.max_metres: {self.max_metres:g} is not above min_metres {self.min_metres:g}; set min < max"
            )

    @property
    def decoding(self) -> Decoding:
        """Metres of the range."""
        return SoftplusDepth(max_metres=self.max_metres, min_metres=self.min_metres)

    def metres(self, prediction: Tensor) -> Tensor:
        """The head's output → float32 metres > 0 of the same shape, not yet clamped."""
        return self.max_metres / 4 * F.softplus(prediction.float() + SOFTPLUS_UNIT)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,): Σ |metres − target| over labelled pixels, and their number."""
        assert prediction.shape == target.shape, f"{tuple(prediction.shape)} against {tuple(target.shape)}"
        valid = self.labelled(target)
        # Replacing targets without a label keeps NaN and infinity out of the gradient: 0 · NaN is NaN.
        error = (self.metres(prediction) - torch.where(valid, target, 0.0)).abs() * valid
        return torch.stack([error.sum(), valid.sum().float()])

    def loss(self, sums: Tensor) -> Tensor:
        """() metres; 0 where no pixel has a label."""
        return sums[0] / sums[1].clamp_min(1)

    def metric(self) -> Metric:
        """``rmse`` (m), ``abs_rel``, ``log_rmse`` (natural logarithm), ``delta1`` to ``delta3`` (shares).

        All are pooled over the labelled pixels of all pictures (a mean over pictures gives other numbers). Delta k is
        the share of pixels where max(p/t, t/p) < 1.25^k.
        """
        return DepthMetric(self)

    def metric_with_details(self) -> Metric:
        """As :meth:`metric`, with the errors in ten intervals of the labels' depth."""
        return DepthMetric(self, by_distance=True)

    def labelled(self, target: Tensor) -> Tensor:
        """Where ``min_metres`` ≤ target ≤ ``max_metres``; bool of the same shape."""
        return (target >= self.min_metres) & (target <= self.max_metres)

    def outside(self, target: Tensor) -> Mapping[str, Tensor]:
        """The finite depths of (1, H, W) beyond ``max_metres``, and those above 0 below ``min_metres``."""
        depths = target.numpy(force=True)[0]  # NumPy compares several times faster than torch without a GPU
        return {
            f"beyond max_metres = {self.max_metres:g}": torch.from_numpy(
                (depths > self.max_metres) & (depths < np.inf)
            ),
            f"below min_metres = {self.min_metres:g}": torch.from_numpy((depths > 0) & (depths < self.min_metres)),
        }

    def oddity(self, target: Tensor) -> str | None:
        """Labels that were normalised, or pile up at ``max_metres``: depth that was clipped there was not measured."""
        target = target.as_subclass(Tensor)
        depths = target.numpy(force=True)
        labelled = torch.from_numpy((depths >= self.min_metres) & (depths <= self.max_metres))
        told = self.target.oddity(target, labelled)
        if not told and float(target.max()) in _WHITE and labelled.any():
            return (
                f"end at exactly {float(target.max()):g} m, as numbers do that were stretched from dark to bright;"
                " depth without a unit is a task of its own: RelativeDepth"
            )
        if told or np.count_nonzero(depths == self.max_metres) <= _PILE * int(labelled.count_nonzero()):
            return told
        return (
            f"pile up at exactly max_metres = {self.max_metres:g}; if depth was clipped there, list the value in the"
            " file as `invalid`, as KITTI's and NYU's scripts leave it out"
        )

    def check_target(self, target: Tensor, where: str) -> None:
        """Raise DataError unless ``target`` is (1, H, W) floats without NaN, some in range if there is any depth."""
        if target.ndim != 3 or target.shape[0] != 1 or not target.is_floating_point():
            raise DataError(
                f"{where}: expected a float map of depth (1, H, W), got {target.dtype} of shape {tuple(target.shape)}"
            )
        target = target.as_subclass(Tensor)
        if target.numel() and self.labelled(target.max()):  # which is NaN where any is
            return
        if num_nan := int(target.isnan().sum()):
            raise DataError(f"{where}: {num_nan} of {target.numel()} depths are NaN; write 0 where there is no depth")
        if self.labelled(target).any():
            return
        # A file without any depth is fine; if all of its depths are out of range, the unit is most likely wrong.
        if len(depths := target[(target > 0) & target.isfinite()]):
            far = bool(depths.max() > self.max_metres)
            bound = f"exceed max_metres = {self.max_metres:g}" if far else f"are below min_metres = {self.min_metres:g}"
            raise DataError(
                f"{where}: all {len(depths)} depths {bound} (median {float(depths.median()):g}), so none has"
                " a label; set the unit in the data description, or the range, or list what means no depth as `invalid`"
            )

    def decode(self, prediction: Tensor) -> Tensor:
        """The head's output (B, 1, H, W) → metres (B, H, W) float32 in [min_metres, max_metres]."""
        return self.metres(prediction)[:, 0].clamp(self.min_metres, self.max_metres)


@final
class DepthMetric(Totals):
    """Root-mean-square, relative and logarithmic errors and deltas, as :meth:`Depth.metric` defines them."""

    errors: Tensor
    counts: Tensor
    errors_at: Tensor
    pixels_at: Tensor

    def __init__(self, task: Depth, *, by_distance: bool = False) -> None:
        super().__init__()
        self.task = task
        self.by_distance = by_distance
        # Squared, relative and squared logarithmic errors; pixels, and those within each delta.
        self.add_total("errors", 3)
        self.add_total("counts", 4, dtype=torch.int64)
        if by_distance:  # by interval of the label: squared, relative and signed errors; pixels
            self.add_total("errors_at", 3, DISTANCES)
            self.add_total("pixels_at", DISTANCES, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pictures: the head's output and metres, both (B, 1, H, W)."""
        valid = self.task.labelled(target)
        p, t = exact(self.task.decode(prediction)[:, None][valid]), exact(target[valid])
        log = p.log() - t.log()
        self.add("errors", torch.stack([((p - t) ** 2).sum(), ((p - t).abs() / t).sum(), (log**2).sum()]))
        within = [(torch.maximum(p / t, t / p) < 1.25**k).sum() for k in (1, 2, 3)]
        self.add("counts", torch.stack([valid.sum().to(p.device), *within]))
        if self.by_distance:
            least, most = self.task.min_metres, self.task.max_metres
            at = ((t - least) * (DISTANCES / (most - least))).long().clamp(0, DISTANCES - 1)
            parts = [(p - t) ** 2, (p - t).abs() / t, p - t]
            self.add("errors_at", torch.stack([torch.bincount(at, part, DISTANCES) for part in parts]))
            self.add("pixels_at", torch.bincount(at, minlength=DISTANCES))

    def compute(self) -> dict[str, Tensor]:
        """() float64 values by name."""
        squared, relative, log = ratio_or_nan(self.errors, self.counts[0].expand(3)).unbind()
        deltas = ratio_or_nan(self.counts[1:], self.counts[0].expand(3)).unbind()
        values = {"rmse": squared.sqrt(), "abs_rel": relative, "log_rmse": log.sqrt()}
        return values | {f"delta{k}": value for k, value in enumerate(deltas, 1)}

    def details(self) -> tuple[Detail, ...]:
        """Errors by the label's depth, if they were counted; nothing where no pixel has a label."""
        if not self.by_distance or self.pixels_at.sum() == 0:
            return ()
        squared, relative, signed = ratio_or_nan(self.errors_at, self.pixels_at.expand(3, -1)).unbind()
        columns = {"rmse": squared.sqrt(), "abs_rel": relative, "mean error": signed, "pixels": self.pixels_at}
        least, most = self.task.min_metres, self.task.max_metres
        edges = [least + (most - least) * k / DISTANCES for k in range(DISTANCES + 1)]
        named = {name: values.tolist() for name, values in columns.items()}
        title = "RMSE by the label's depth, metres"
        return (Bins(name="by_distance", title=title, quantity="metres", edges=edges, columns=named, unit="m"),)
