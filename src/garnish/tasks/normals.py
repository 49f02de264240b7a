"""Surface normals task: a unit vector per pixel in the camera frame, x right, y down, z forward (readers convert).

Shape letters: B pictures, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from garnish.checking.bounds import Weight
from garnish.decodings.decoding import Decoding
from garnish.decodings.directions import Directions
from garnish.drawing.painting import SHORTEST_VECTOR
from garnish.errors import DataError
from garnish.reporting.detail import Detail
from garnish.reporting.number_tables import Bins
from garnish.targets.target import Target
from garnish.targets.unit_vectors import UnitVectors
from garnish.tasks.metrics.totals import Totals, exact, ratio_or_nan
from garnish.tasks.task import Task

#: Width of a bin of the histogram that gives the median angle, degrees.
BIN_DEGREES = 0.05
#: Ends of the intervals of angles in which pixels are counted for people, degrees.
SHOWN_DEGREES = tuple(range(0, 185, 5))
#: Angles whose shares are reported, degrees, by metric name.
WITHIN_DEGREES = {"within_11_25": 11.25, "within_22_5": 22.5, "within_30": 30.0}


@final
@dataclass(frozen=True, kw_only=True)
class Normals(Task):
    """Unit vectors. Targets of zero length have no label.

    Loss: L1 between the normalised prediction and the target, mean over the three components of labelled pixels, as
    in the survey's and MTLoRA's code. DeMT and InvPT divide the same sum by the number of pixels: their loss is three
    times this one, and their weight of 10 corresponds to 30 here.

    Attributes:
        weight: of this task in the sum of losses (10: PASCAL-Context and NYUD multi-task convention; the 10 of DeMT
            and InvPT corresponds to 30).

    Example:
        >>> gn.Normals().channels
        3
    """

    headline: ClassVar[str] = "mean_angle"  # in degrees
    channels: ClassVar[int] = 3  # x, y, z
    decoding: ClassVar[Decoding] = Directions()
    higher_is_better: ClassVar[bool] = False
    target: ClassVar[type[Target]] = UnitVectors

    weight: Weight = 10.0

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,): Σ |normalised prediction − target| over the components of labelled pixels, and their number."""
        assert prediction.shape == target.shape, f"{tuple(prediction.shape)} against {tuple(target.shape)}"
        valid = has_normal(target)
        # Replacing targets without a label keeps NaN and infinity out of the gradient: 0 · NaN is NaN.
        error = (unit(prediction) - torch.where(valid, target, 0.0)).abs() * valid
        return torch.stack([error.sum(), 3 * valid.sum().float()])

    def loss(self, sums: Tensor) -> Tensor:
        """() mean absolute error of a component; 0 where no pixel has a label."""
        return sums[0] / sums[1].clamp_min(1)

    def metric(self) -> Metric:
        """``mean_angle``, ``median_angle``, ``rmse_angle`` in degrees; ``within_11_25``, ``_22_5``, ``_30`` as shares.

        All are pooled over the labelled pixels of all pictures. Both vectors are renormalised; the angle is
        atan2(|p × t|, p · t), accurate where arccos is not; a zero prediction counts as 90°. The median is interpolated
        in a histogram of 0.05° bins. (The "rmse" that the PASCAL-Context literature reports is our mean_angle.)
        """
        return NormalsMetric()

    def labelled(self, target: Tensor) -> Tensor:
        """(…, 1, H, W) bool: where the normals (…, 3, H, W) are finite and not zero."""
        return has_normal(target)

    def check_target(self, target: Tensor, where: str) -> None:
        """Raise DataError unless ``target`` is (3, H, W) floats of length 1 (to 0.05) or 0."""
        if target.ndim != 3 or target.shape[0] != 3 or not target.is_floating_point():
            raise DataError(
                f"{where}: expected float normals (3, H, W), got {target.dtype} of shape {tuple(target.shape)}"
            )
        length = target.float().norm(dim=0)
        if num_bad := int((~length.isfinite()).sum()):
            raise DataError(f"{where}: {num_bad} normals are not finite; write zeros where there is no normal")
        bad = (length > SHORTEST_VECTOR) & ((length - 1).abs() > 0.05)
        if num_bad := int(bad.sum()):
            raise DataError(
                f"{where}: {num_bad} of {length.numel()} normals are neither of length 1 nor 0 (lengths"
                f" {float(length[bad].min()):.3g} to {float(length[bad].max()):.3g}); normalise them, or set the file's"
                " value range in the data description"
            )

    def decode(self, prediction: Tensor) -> Tensor:
        """The head's output (B, 3, H, W) → unit vectors (B, 3, H, W) float32."""
        return unit(prediction)


def unit(vectors: Tensor) -> Tensor:
    """(B, 3, H, W) → the same directions with length 1, float32; vectors shorter than 1e-3 stay shorter than 1.

    That bound keeps the gradient finite where a head starts at zero.
    """
    return F.normalize(vectors.float(), dim=1, eps=SHORTEST_VECTOR)


def has_normal(target: Tensor) -> Tensor:
    """(…, 1, H, W) bool: where the normals (…, 3, H, W) are finite and not zero."""
    length = torch.linalg.vector_norm(target.float(), dim=-3, keepdim=True)
    return torch.isfinite(length) & torch.gt(length, SHORTEST_VECTOR)


@final
class NormalsMetric(Totals):
    """Mean, median and root-mean-square angle and shares within angles, as :meth:`Normals.metric` defines them."""

    degrees: Tensor
    within: Tensor
    histogram: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Σ angle, Σ angle²; pixels within each angle; pixels by angle (their sum is the number of pixels).
        self.add_total("degrees", 2)
        self.add_total("within", len(WITHIN_DEGREES), dtype=torch.int64)
        self.add_total("histogram", round(180 / BIN_DEGREES), dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pictures: the head's output and unit normals, both (B, 3, H, W)."""
        valid = has_normal(target)[:, 0]
        p, t = (exact(x.movedim(1, -1)[valid]) for x in (prediction, target))
        p, t = F.normalize(p, dim=-1), F.normalize(t, dim=-1)
        across, along = torch.linalg.cross(p, t).norm(dim=-1), (p * t).sum(-1)
        angle = torch.rad2deg(torch.atan2(across, along))
        angle = torch.where(p.abs().sum(-1) == 0, 90.0, angle)
        self.add("degrees", torch.stack([angle.sum(), (angle**2).sum()]))
        self.add("within", torch.stack([(angle < limit).sum() for limit in WITHIN_DEGREES.values()]))
        bins = len(self.histogram)
        self.add("histogram", torch.bincount((angle / BIN_DEGREES).long().clamp(0, bins - 1), minlength=bins))

    def compute(self) -> dict[str, Tensor]:
        """() float64 values by name."""
        count = self.histogram.sum()
        mean, square = ratio_or_nan(self.degrees, count.expand(2)).unbind()
        values = {"mean_angle": mean, "median_angle": self._median(), "rmse_angle": square.sqrt()}
        shares = ratio_or_nan(self.within, count.expand(len(self.within))).unbind()
        return values | dict(zip(WITHIN_DEGREES, shares, strict=True))

    def details(self) -> tuple[Detail, ...]:
        """Pixels by angle, in intervals of 5°; nothing where no pixel has a label."""
        if self.histogram.sum() == 0:
            return ()
        pixels = self.histogram.reshape(len(SHOWN_DEGREES) - 1, -1).sum(1)
        columns = {"share of pixels": ratio_or_nan(pixels, pixels.sum()).tolist(), "pixels": pixels.tolist()}
        title = "Pixels by the angle of their error"
        return (Bins(name="angles", title=title, quantity="degrees", edges=SHOWN_DEGREES, columns=columns, unit="°"),)

    def _median(self) -> Tensor:
        """() degrees: where half of the pixels lie below, interpolated inside the bin."""
        upto = self.histogram.cumsum(0).double()
        half = upto[-1:] / 2
        k = torch.searchsorted(upto, half).clamp(max=len(upto) - 1)
        inside = self.histogram[k].double()
        return (BIN_DEGREES * (k + 1 - ratio_or_nan(upto[k] - half, inside)))[0]
