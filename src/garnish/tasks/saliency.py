"""Saliency task: which pixels belong to the objects that attract the eye first.

Shape letters: B pictures, H W pixels, T thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torchmetrics import Metric

from garnish.checking.bounds import Share, Weight
from garnish.decodings.decoding import Decoding
from garnish.decodings.probabilities import Probabilities
from garnish.errors import OptionError
from garnish.reporting.detail import Detail
from garnish.targets.target import IGNORE
from garnish.tasks.binary import BinaryTask, balanced_bce
from garnish.tasks.metrics.thresholds import HUNDREDTHS, TWENTIETHS, counts_above, over_thresholds
from garnish.tasks.metrics.tolerance import f_measure, precision_recall
from garnish.tasks.metrics.totals import Totals, exact, ratio_or_nan
from garnish.tasks.task import Role

#: Thresholds of the intersection over union: .20, .25 … .90.
IOU_THRESHOLDS = tuple(k / 100 for k in range(20, 95, 5))
#: β² of the F-measure, which favours precision (Achanta et al. 2009).
BETA_SQUARED = 0.3
_F_AT = {"hundredths": HUNDREDTHS, "twentieths": TWENTIETHS}


@final
@dataclass(frozen=True, kw_only=True)
class Saliency(BinaryTask):
    """Salient pixels. Targets hold 1 where salient, 0 elsewhere, 255 where there is no label.

    Loss: cross-entropy balanced by the share of negatives among the labelled pixels of all pictures of a step.

    Attributes:
        weight: of this task in the sum of losses (5: PASCAL-Context multi-task convention).
        iou_threshold: a multiple of .01, chosen on other pictures, at which the IoU is measured as well; null: none.
        f_threshold: the same for the F-measure, one of the thresholds that ``max_f_at`` names.
        max_f_at: thresholds of F: "hundredths", .01, .02 … .99, probability > threshold; "twentieths", .05, .10 …
            .95, probability ≥ threshold, as in the released code of DeMT and InvPT. On flat maps the largest F of the
            two may differ by .03, so set the latter to compare with their figures.

    Example:
        >>> gn.Saliency().headline
        'iou_at_best_threshold'
    """

    pipeline_tag: ClassVar[str | None] = "image-segmentation"
    headline: ClassVar[str] = "iou_at_best_threshold"
    #: salient is white, the rest black; blue-grey where there is no label
    decoding: ClassVar[Decoding] = Probabilities(none_colour=(70, 80, 110))
    thresholds: ClassVar[Mapping[str, str]] = {
        "iou_threshold": "best_iou_threshold",
        "f_threshold": "best_f_threshold",
    }
    roles: ClassVar[Mapping[str, Role]] = {"iou_threshold": "metric", "f_threshold": "metric", "max_f_at": "metric"}

    weight: Weight = 5.0
    iou_threshold: Share | None = None
    f_threshold: Share | None = None
    max_f_at: Literal["hundredths", "twentieths"] = "hundredths"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, known in (("iou_threshold", HUNDREDTHS), ("f_threshold", self.f_thresholds)):
            if (value := getattr(self, option)) is not None and value not in known:
                raise OptionError(f"Saliency.{option}: {value}; set one of {known[0]}, {known[1]:.2f} … {known[-1]}")

    @property
    def f_thresholds(self) -> tuple[float, ...]:
        """The thresholds of the F-measure."""
        return _F_AT[self.max_f_at]

    def loss(self, sums: Tensor) -> Tensor:
        """() balanced cross-entropy; 0 where no pixel has a label, or all have the same."""
        return balanced_bce(sums, None)

    def metric(self) -> Metric:
        """``iou_at_best_threshold``, ``best_iou_threshold``, ``iou_at_0_5``, ``max_f``, ``best_f_threshold``.

        The IoU is that of the salient pixels of one picture (1 where neither map has any), averaged over the pictures
        for each of 15 thresholds .20, .25 … .90 (probability > threshold); the best threshold is chosen on the set
        itself, like the "mIoU" that the PASCAL-Context adapter literature reports. ``max_f`` is the largest F-measure
        with β² = 0.3 over the thresholds of ``max_f_at``, from precision and recall pooled over all pictures. With
        ``iou_threshold`` also ``iou_at_chosen_threshold``, with ``f_threshold`` ``f_at_chosen_threshold``: the unbiased
        figures for test pictures, with thresholds chosen on other pictures.
        """
        return SaliencyMetric(self)


@final
class SaliencyMetric(Totals):
    """IoU and F-measure at the best and at chosen thresholds, as :meth:`Saliency.metric` defines them."""

    iou: Tensor
    pictures: Tensor
    true_positives: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self, task: Saliency) -> None:
        super().__init__()
        self.task = task
        # Per threshold: Σ IoU over pictures; then pixels, for the F-measure.
        self.add_total("iou", len(HUNDREDTHS))
        self.add_total("pictures", dtype=torch.int64)
        self.add_total("true_positives", len(task.f_thresholds), dtype=torch.int64)
        self.add_total("predicted", len(task.f_thresholds), dtype=torch.int64)
        self.add_total("true", dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pictures: logits and {0, 1, 255}, both (B, 1, H, W). A picture without any label does not count."""
        probability = self.task.decode(prediction)
        salient, valid = target[:, 0] == 1, target[:, 0] != IGNORE
        hits = counts_above(probability, salient, HUNDREDTHS)
        guesses = counts_above(probability, valid, HUNDREDTHS)
        num_true = salient.flatten(1).sum(1)
        labelled = valid.flatten(1).any(1)

        union = guesses + num_true[:, None] - hits
        # Float32 is enough for one picture's quotient; the sum over many pictures is in float64.
        iou = torch.where(union == 0, 1.0, hits / union.clamp_min(1)) * labelled[:, None]
        self.add("iou", exact(iou).sum(0))
        self.add("pictures", labelled.sum())
        if self.task.max_f_at == "twentieths":
            hits, guesses = (counts_above(probability, where, TWENTIETHS, or_at=True) for where in (salient, valid))
        self.add("true_positives", hits.sum(0))
        self.add("predicted", guesses.sum(0))
        self.add("true", num_true.sum())

    def _by_threshold(self) -> tuple[Tensor, Tensor, Tensor]:
        """(T,) precision, recall and F."""
        precision, recall = precision_recall(
            self.true_positives, self.predicted, self.true_positives, self.true.expand_as(self.predicted)
        )
        return precision, recall, f_measure(precision, recall, BETA_SQUARED)

    def details(self) -> tuple[Detail, ...]:
        """Precision, recall and F over thresholds; nothing where no picture has a label."""
        if self.pictures == 0:
            return ()
        return (over_thresholds(self.task.f_thresholds, *self._by_threshold(), f_name=f"F (β² = {BETA_SQUARED})"),)

    def compute(self) -> dict[str, Tensor]:
        """() float64 values by name."""
        every_iou = ratio_or_nan(self.iou, self.pictures.expand(len(HUNDREDTHS)))
        iou = every_iou[[HUNDREDTHS.index(t) for t in IOU_THRESHOLDS]]
        best = iou.argmax()
        _, _, f = self._by_threshold()
        best_f = f.argmax()
        seen = torch.where(self.pictures > 0, 1.0, torch.nan).double()
        values = {
            "iou_at_best_threshold": iou[best],
            "best_iou_threshold": iou.new_tensor(IOU_THRESHOLDS)[best] * seen,
            "iou_at_0_5": iou[IOU_THRESHOLDS.index(0.5)],
            "max_f": f[best_f] * seen,
            "best_f_threshold": f.new_tensor(self.task.f_thresholds)[best_f] * seen,
        }
        if self.task.iou_threshold is not None:
            values["iou_at_chosen_threshold"] = every_iou[HUNDREDTHS.index(self.task.iou_threshold)]
        if self.task.f_threshold is not None:
            values["f_at_chosen_threshold"] = f[self.task.f_thresholds.index(self.task.f_threshold)] * seen
        return values
