"""The boundary benchmark: ODS-F, OIS-F and AP from thinned predictions, one-to-one matching and 99 thresholds.

Shape letters: B pictures, H W pixels, T thresholds.
"""

from __future__ import annotations

from functools import partial
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from garnish.reporting.detail import Detail
from garnish.targets.target import IGNORE
from garnish.tasks.binary import BinaryTask
from garnish.tasks.metrics.boundary_counts import count_picture, workers
from garnish.tasks.metrics.thresholds import HUNDREDTHS, over_thresholds
from garnish.tasks.metrics.totals import Totals

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@final
class BoundaryMetric(Totals):
    """The boundary benchmark of BSDS as SEISM runs it for the multi-task literature, without MATLAB.

    For each picture and threshold .01, .02 … .99: pixels with probability > threshold are thinned to lines one pixel
    wide (:mod:`garnish.tasks.metrics.thinning`), and matched one to one with the true boundary pixels, at most
    ``max_distance`` times the picture's diagonal apart (:mod:`garnish.tasks.metrics.boundary_matching`). Then with the
    counts pooled over pictures:

    - ODS: precision, recall and F at the one threshold with the largest F, chosen on the evaluated set itself;
    - OIS: counts of each picture at its own best threshold, the lowest of equals, chosen on its own target;
    - AP: precision over recall, interpolated linearly at recall 0, .01 … 1, summed where there is a measured recall
      on both sides (no extrapolation) and divided by 100, as in the reference (for 101 points). Of several
      thresholds with equal recall the lowest is used, as in MATLAB since 2013.

    Precision is 0 if nothing is predicted and recall 0 if nothing is true, as in BSDS (SEISM sets precision to
    1 there, which can change its AP only). Differences from the references: one target per picture; probabilities are
    not rounded to 8 bits; BSDS takes probabilities ≥ threshold. Pixels without a label are set to background in both
    maps before thinning, so their content has no effect.

    Args:
        task: decodes predictions to probabilities.
        max_distance: largest distance of a pair as a share of the picture's diagonal.
        nms: suppress non-maxima before thresholding. BSDS's edge detectors do, SEISM does not.
        thin_target: thin the targets too. The references do not, as their targets are one pixel wide already.
        processes: number of processes that share the pictures of one update; 1: only this one.
    """

    matched: Tensor
    predicted: Tensor
    true: Tensor
    own: Tensor
    pixels: Tensor

    def __init__(self, task: BinaryTask, *, max_distance: float, nms: bool, thin_target: bool, processes: int) -> None:
        super().__init__()
        self.task = task
        self.max_distance = max_distance
        self.nms = nms
        self.thin_target = thin_target
        self.processes = processes
        # Pooled, per threshold: pairs and predicted pixels; true pixels are the same for all thresholds.
        self.add_total("matched", len(HUNDREDTHS), dtype=torch.int64)
        self.add_total("predicted", len(HUNDREDTHS), dtype=torch.int64)
        self.add_total("true", dtype=torch.int64)
        # Pairs and predicted pixels of each picture at its own best threshold.
        self.add_total("own", 2, dtype=torch.int64)
        self.add_total("pixels", dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pictures: logits and a target of {0, 1, 255}, both (B, 1, H, W)."""
        valid = target[:, 0] != IGNORE
        probability = torch.where(valid, self.task.decode(prediction), 0.0).float().cpu().numpy()
        true = (target[:, 0] == 1).cpu().numpy()
        count = partial(
            count_picture,
            thresholds=HUNDREDTHS,
            max_distance=self.max_distance,
            nms=self.nms,
            thin_target=self.thin_target,
        )
        spread = self.processes > 1 and len(true) > 1
        found = (workers(self.processes).map if spread else map)(count, probability, true)
        for matched, predicted, num_true in found:
            best = int(_scores(matched, predicted, num_true)[2].argmax())
            self.add("matched", torch.from_numpy(matched))
            self.add("predicted", torch.from_numpy(predicted))
            self.add("true", torch.tensor(num_true))
            self.add("own", torch.tensor([matched[best], predicted[best]]))
        self.add("pixels", valid.sum())

    def details(self) -> tuple[Detail, ...]:
        """Precision, recall and F over thresholds; nothing where no pixel has a label."""
        scores = _scores(self.matched.cpu().numpy(), self.predicted.cpu().numpy(), int(self.true))
        return (over_thresholds(HUNDREDTHS, *map(torch.from_numpy, scores)),) if self.pixels > 0 else ()

    def compute(self) -> dict[str, Tensor]:
        """Name → value, () float64; NaN if no pixel had a label."""
        num_true = int(self.true)
        precision, recall, f = _scores(self.matched.cpu().numpy(), self.predicted.cpu().numpy(), num_true)
        best = int(f.argmax())
        own_matched, own_predicted = self.own.cpu().numpy()[:, None]
        own_precision, own_recall, own_f = (float(x[0]) for x in _scores(own_matched, own_predicted, num_true))
        values = {
            "ods_f": f[best],
            "ods_precision": precision[best],
            "ods_recall": recall[best],
            "best_threshold": HUNDREDTHS[best],
            "ods_f_interpolated": best_between(precision, recall),
            "ois_f": own_f,
            "ois_precision": own_precision,
            "ois_recall": own_recall,
            "ap": average_precision(precision, recall),
            "f_at_0_5": f[HUNDREDTHS.index(0.5)],
        }
        seen = bool(self.pixels > 0)
        return {
            name: torch.tensor(value if seen else torch.nan, dtype=torch.float64, device=self.true.device)
            for name, value in values.items()
        }


def average_precision(precision: Floats, recall: Floats) -> float:
    """BSDS's average precision of (T,) values by ascending threshold (:class:`BoundaryMetric`); 0 for one recall."""
    known, first = np.unique(recall, return_index=True)
    if len(known) < 2:
        return 0.0
    at = np.interp(np.linspace(0, 1, 101), known, precision[first], left=np.nan, right=np.nan)
    return float(np.nansum(at) / 100)


def best_between(precision: Floats, recall: Floats) -> float:
    """Largest F with precision and recall interpolated linearly between neighbouring thresholds, at 100 points each.

    This is how BSDS and Dollár's toolbox print ODS; SEISM takes the largest F at a threshold.
    """
    share = np.linspace(0, 1, 100)
    p, r = (x[1:, None] * share + x[:-1, None] * (1 - share) for x in (precision, recall))
    return float(_f(p, r).max())


def _scores(matched: Integers, predicted: Integers, num_true: int) -> tuple[Floats, Floats, Floats]:
    """(T,) precision, recall and F; 0 where the denominator is 0."""
    precision, recall = matched / np.maximum(predicted, 1), matched / max(num_true, 1)
    return precision, recall, _f(precision, recall)


def _f(precision: Floats, recall: Floats) -> Floats:
    """F-measure 2·P·R / (P + R), 0 where both are 0."""
    return 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).eps)
