"""Metrics of depth without a unit, after each picture's map was aligned with its labels.

Shape letters: B pictures, H W pixels, M labelled pixels of one picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from garnish.tasks.metrics.totals import Totals, exact, ratio_or_nan

#: Pairs of pixels that are drawn of each picture.
_PAIRS = 50_000
#: Share of the labels' range by which a pair must differ to have an order.
_APART = 0.03


@final
class RelativeDepthMetric(Totals):
    """``rmse``, ``abs_rel``, ``delta1`` and ``ordinal_error``: means over pictures, each of its labelled pixels.

    The map a·p + b is fitted to each picture's labels t by least squares, in the space of the labels, as MiDaS does
    (Ranftl et al., TPAMI 2022, section 6: in inverse depth) and Marigold (Ke et al., CVPR 2024, section 4.1: in depth).
    They let a be below 0; here it is 0 then, since a map that is upside down must not be right. Values of the first
    three do not change if a map is scaled by more than 0 and shifted:

    - rmse: root of the mean squared difference from t, over the standard deviation of t: 0 to 1, where 1 is a flat map.
      It does not change if the labels are scaled and shifted either, so it selects the best checkpoint.
    - abs_rel: mean of |z' − z| / z, and delta1: share of pixels where max(z'/z, z/z') < 1.25, of depths z = t, or 1/t
      where larger is nearer, over pixels with t > 0; z' likewise of the fitted map, which is not let below the smallest
      t > 0 of the picture (the references cap depth at the data set's range). They take 0 for the camera, or for
      infinitely far: for renderings that were stretched from dark to bright this is wrong, and they say little.
    - ordinal_error: share of wrong orders among 50,000 pairs drawn of the labelled pixels (always the same ones),
      where labels differ by more than 3 % of their range; a tie of the map is wrong. Xian et al. (CVPR 2020) compare
      ratios of depths in place of differences, which need to know where 0 is.

    Pictures whose labels are all equal do not count.

    Args:
        labelled: where a target has a label, (B, 1, H, W) bool.
        nearer: whether larger numbers are nearer.
    """

    values: Tensor
    pictures: Tensor

    def __init__(self, labelled: Callable[[Tensor], Tensor], *, nearer: bool) -> None:
        super().__init__()
        self.labelled = labelled
        self.nearer = nearer
        # Σ over pictures of the four, in the order of their names; how many pictures each has.
        self.add_total("values", 4)
        self.add_total("pictures", 4, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pictures: the head's output and numbers without a unit, both (B, 1, H, W)."""
        for p, t, valid in zip(prediction, target, self.labelled(target), strict=True):
            if valid.any():
                self._add(exact(p[valid].float()), exact(t[valid].float()))

    def _add(self, p: Tensor, t: Tensor) -> None:
        """One picture: (M,) float64 each."""
        spread = t.std(correction=0)
        if not spread > 0:
            return
        fitted = aligned(p, t)
        rmse = (fitted - t).square().mean().sqrt() / spread
        parts = [rmse, *self._ratios(fitted, t), _ordinal_error(p, t)]
        known = torch.stack([~part.isnan() for part in parts])
        self.add("values", torch.stack([part.nan_to_num() for part in parts]))
        self.add("pictures", known)

    def _ratios(self, fitted: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """() abs_rel and delta1; NaN where no label is above 0."""
        there = t > 0
        if not there.any():
            return t.new_tensor(torch.nan), t.new_tensor(torch.nan)
        t = t[there]
        ratio = fitted[there].clamp_min(t.min()) / t
        ratio = 1 / ratio if self.nearer else ratio
        return (ratio - 1).abs().mean(), (torch.maximum(ratio, 1 / ratio) < 1.25).double().mean()

    def compute(self) -> dict[str, Tensor]:
        """() float64 values by name."""
        names = ("rmse", "abs_rel", "delta1", "ordinal_error")
        return dict(zip(names, ratio_or_nan(self.values, self.pictures).unbind(), strict=True))


def aligned(p: Tensor, t: Tensor) -> Tensor:
    """a·p + b of least squares to t, with a ≥ 0; (M,) each."""
    p = p - p.mean()
    power = p.square().sum()
    scale = ((p * (t - t.mean())).sum() / power).clamp_min(0) if power > 0 else power
    return scale * p + t.mean()


def _ordinal_error(p: Tensor, t: Tensor) -> Tensor:
    """() share of pairs in the wrong order; NaN where no pair has one."""
    draw = torch.Generator().manual_seed(0)
    one, other = torch.randint(len(t), (2, _PAIRS), generator=draw).to(t.device)
    wanted = t[one] - t[other]
    apart = wanted.abs() > _APART * (t.max() - t.min())
    wrong = (p[one] - p[other]).sign() != wanted.sign()
    return ratio_or_nan((wrong & apart).sum(), apart.sum())
