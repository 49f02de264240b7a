"""Relative depth task: depth or disparity without a unit, one number per pixel, known up to a scale and a shift.

Shape letters: B pictures, H W pixels, N = H·W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
from torch import Tensor
from torchmetrics import Metric

from garnish.checking.bounds import Weight
from garnish.checking.plain_data import reals
from garnish.decodings.decoding import Decoding
from garnish.decodings.unitless_depth import UnitlessDepth
from garnish.errors import DataError
from garnish.targets.target import Target
from garnish.targets.unitless import Unitless
from garnish.tasks.metrics.relative import RelativeDepthMetric
from garnish.tasks.task import Role, Task

#: Scales of the gradient term: every pixel, every second, fourth and eighth (K = 4 below the paper's eq. 11).
_STEPS = (1, 2, 4, 8)
#: Mean deviation below which an output is divided by this and not by its own, where the loss would be a pole.
_FLAT = 0.1
#: Share of labels at exactly 0 above which they may be holes.
_PILE = 0.01


@final
@dataclass(frozen=True, kw_only=True)
class RelativeDepth(Task):
    """Depth without a unit: renderings of 8 or 16 bits, disparity, another model's maps. NaN: no label.

    Only order and shares of differences are learnt: the head's output is the number itself, and loss and metrics align
    it with each picture's labels first. So one set may hold pictures of different scales, and the map of one picture
    cannot be compared with that of another (nor of a tile with that of its neighbour).

    Loss of one picture, of Ranftl et al. (MiDaS, TPAMI 2022, arXiv:1907.01341v3): output and labels are each shifted
    by their median and divided by their mean absolute deviation from it (eq. 5 and 6), so that neither the scale above
    0 nor the shift of either counts, and a map that is upside down is wrong. Then ``Σ |residual| / (2 M)`` over M
    labelled pixels without the share ``trim`` of the largest residuals (eq. 7, with .2), plus ``gradient`` times the
    absolute differences of residuals between neighbours, over four scales, each divided by the labelled pixels that it
    keeps (eq. 11; the weight .5 of eq. 12), which keeps depth edges sharp and planes flat. Pictures count alike, as in
    eq. 12, however many labels they have; those whose labels are all equal say nothing and do not count. An output
    whose mean deviation is below 0.1 is divided by 0.1: there it is flat, as heads begin, and an invariant loss would
    have no bound on its gradient.

    Attributes:
        larger: what larger numbers of the labels mean: "nearer" (disparity, MiDaS' renderings) or "farther" (depth). It
            has no default, since files do not tell and a wrong one turns every map and ratio around.
        trim: share of each picture's labelled pixels, those of the largest residuals, that the loss leaves out. The
            paper's .2 is for labels with outliers (stereo of films); it also leaves out what is not learnt yet, such as
            small near things, so it is off.
        gradient: weight of the gradient term.

    Example:
        >>> gn.RelativeDepth(larger="nearer").headline
        'rmse'
    """

    headline: ClassVar[str] = "rmse"  # over the labels' own spread
    channels: ClassVar[int] = 1
    higher_is_better: ClassVar[bool] = False
    target: ClassVar[type[Target]] = Unitless
    pipeline_tag: ClassVar[str | None] = "depth-estimation"
    roles: ClassVar[Mapping[str, Role]] = {"larger": "labels", "trim": "loss", "gradient": "loss"}

    larger: Literal["nearer", "farther"]
    trim: Annotated[float, reals(0, 0.9)] = 0.0
    gradient: Weight = 0.5

    @property
    def decoding(self) -> Decoding:
        """Numbers without a unit."""
        return UnitlessDepth(larger=self.larger)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(3,): Σ over pictures of both terms of the loss, and the number of pictures that count.

        Sorting and ratios stay within a picture, which is whole in one process, so these add up.
        """
        assert prediction.shape == target.shape, f"{tuple(prediction.shape)} against {tuple(target.shape)}"
        valid = self.labelled(target)[:, 0]
        wanted, spread = _centred(torch.where(valid, target[:, 0], 0.0), valid)
        found, deviation = _centred(prediction[:, 0].float(), valid)
        counts = spread > 0
        wanted = wanted / torch.where(counts, spread, 1.0)[:, None, None]
        residual = found / deviation.clamp_min(_FLAT)[:, None, None] - wanted
        data, edges = self._data_term(residual, valid), _gradient_term(residual, valid)
        return torch.stack([(data * counts).sum(), (edges * counts).sum(), counts.sum().float()])

    def loss(self, sums: Tensor) -> Tensor:
        """() mean over pictures; 0 where none counts."""
        data, edges, pictures = sums.unbind()
        return (data + self.gradient * edges) / pictures.clamp_min(1)

    def _data_term(self, residual: Tensor, valid: Tensor) -> Tensor:
        """(B,) eq. 7."""
        size = (residual.abs() * valid).flatten(1)
        labelled = valid.flatten(1).sum(1)
        if self.trim:
            size = size.masked_fill(~valid.flatten(1), torch.inf).sort(1).values
            kept = (labelled * (1 - self.trim)).long().clamp_min(1).minimum(labelled)
            size = torch.where(torch.arange(size.shape[1], device=size.device) < kept[:, None], size, 0.0)
        return size.sum(1) / (2 * labelled.clamp_min(1))

    def metric(self) -> Metric:
        """``rmse``, ``abs_rel``, ``delta1``, ``ordinal_error``: :class:`RelativeDepthMetric` says how each is had."""
        return RelativeDepthMetric(self.labelled, nearer=self.larger == "nearer")

    def oddity(self, target: Tensor) -> str | None:
        """Labels that pile up at 0, which often means "no depth" in files."""
        labels = target[self.labelled(target)]
        none = int((labels == 0).sum())
        if (told := super().oddity(target)) or none <= _PILE * len(labels) or bool((labels < 0).any()):
            return told
        share = 100 * none / len(labels)
        return f"hold exactly 0 at {share:.0f} % of the pixels; if that means 'no depth', list it: `invalid: 0`"

    def check_target(self, target: Tensor, where: str) -> None:
        """Raise DataError unless ``target`` is (1, H, W) floats, none infinite."""
        if target.ndim != 3 or target.shape[0] != 1 or not target.is_floating_point():
            raise DataError(
                f"{where}: expected a float map of depth (1, H, W), got {target.dtype} of shape {tuple(target.shape)}"
            )
        if count := int(target.isinf().sum()):
            raise DataError(f"{where}: {count} of {target.numel()} numbers are infinite; write NaN where there is none")

    def decode(self, prediction: Tensor) -> Tensor:
        """The head's output (B, 1, H, W) → the same numbers (B, H, W) float32, without a unit."""
        return prediction[:, 0].float()


def _centred(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W) less the median of each picture's valid pixels (the lower of two), 0 elsewhere; (B,) the mean size of
    what is left (eq. 5).
    """
    labelled = valid.flatten(1).sum(1)
    # One sort of all pixels with the others at the end: shapes do not depend on the labels.
    ascending = values.masked_fill(~valid, torch.inf).flatten(1).sort(1).values
    median = ascending.gather(1, ((labelled - 1).clamp_min(0) // 2)[:, None])[..., None]
    centred = torch.where(valid, values - torch.where(labelled[:, None, None] > 0, median, 0.0), 0.0)
    return centred, centred.abs().flatten(1).sum(1) / labelled.clamp_min(1)


def _gradient_term(residual: Tensor, valid: Tensor) -> Tensor:
    """(B,) eq. 11, of (B, H, W)."""
    total = residual.new_zeros(len(residual))
    for step in _STEPS:
        r, v = residual[:, ::step, ::step], valid[:, ::step, ::step]
        right = (r[:, :, 1:] - r[:, :, :-1]).abs() * (v[:, :, 1:] & v[:, :, :-1])
        down = (r[:, 1:] - r[:, :-1]).abs() * (v[:, 1:] & v[:, :-1])
        total = total + (right.flatten(1).sum(1) + down.flatten(1).sum(1)) / v.flatten(1).sum(1).clamp_min(1)
    return total
