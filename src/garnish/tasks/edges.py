"""Edge task: which pixels lie on a boundary.

Shape letters: B pictures, H W pixels, T thresholds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
from torch import Tensor
from torchmetrics import Metric

from garnish.checking.bounds import Pixels, Processes, Weight
from garnish.checking.plain_data import reals
from garnish.decodings.decoding import Decoding
from garnish.decodings.probabilities import Probabilities
from garnish.reporting.detail import Detail
from garnish.targets.target import IGNORE
from garnish.tasks.binary import BinaryTask, balanced_bce
from garnish.tasks.metrics.boundaries import BoundaryMetric
from garnish.tasks.metrics.thresholds import HUNDREDTHS, counts_above, over_thresholds
from garnish.tasks.metrics.tolerance import disc_maximum, f_measure, precision_recall
from garnish.tasks.metrics.totals import Totals
from garnish.tasks.task import Role


@final
@dataclass(frozen=True, kw_only=True)
class Edges(BinaryTask):
    """Boundaries. Targets hold 1 on an edge, 0 elsewhere, 255 where there is no label.

    Loss: cross-entropy with a fixed weight of the positives, ``(w·Σ positives + (1 − w)·Σ negatives) / pixels``.

    Attributes:
        weight: of this task in the sum of losses (50: PASCAL-Context and NYUD multi-task convention).
        positive_weight: w, in (0, 1) (0.95 for PASCAL-Context and in the survey; 0.8 in ATRC and DeMT on NYUD).
        tolerance_px: an edge pixel is correct if the other map has one within this Euclidean distance ("pooled").
        protocol: which metric: "pooled", cheap enough for every epoch, or "ods", the boundary benchmark (ODS-F, OIS-F,
            AP: thinned predictions, one-to-one matching), which takes about a second a picture of 480 × 640.
        max_distance: largest distance of a matched pair, as a share of the picture's diagonal ("ods"; 0.0075 for
            BSDS and PASCAL-Context, 0.011 for NYUD).
        nms: apply non-maximum suppression before thresholds ("ods"; BSDS's detectors do, the multi-task literature
            does not).
        thin_target: thin the targets like the predictions ("ods"; set False for targets one pixel wide, which the
            benchmarks use unchanged).
        processes: number of processes that share the pictures of a batch ("ods"); above 1 a script needs the usual
            ``if __name__ == "__main__"``.

    Example:
        >>> gn.Edges(tolerance_px=1).headline
        'f_at_1px'
    """

    #: edges black on white, light grey where there is no label
    decoding: ClassVar[Decoding] = Probabilities(dark=True, none_colour=(204, 204, 204))
    roles: ClassVar[Mapping[str, Role]] = {
        "positive_weight": "loss",
        "tolerance_px": "metric",
        "protocol": "metric",
        "max_distance": "metric",
        "nms": "metric",
        "thin_target": "metric",
        "processes": "work",
    }

    weight: Weight = 50.0
    positive_weight: Annotated[float, reals(0, 1, above=True, below=True)] = 0.95
    tolerance_px: Pixels = 2
    protocol: Literal["pooled", "ods"] = "pooled"
    max_distance: Annotated[float, reals(0, 0.25)] = 0.0075
    nms: bool = False
    thin_target: bool = True
    processes: Processes = 1

    @property
    def idle_options(self) -> tuple[str, ...]:
        """Options that were set but belong to the other protocol."""
        ods = ("max_distance", "nms", "thin_target", "processes")
        idle, other = (("tolerance_px",), "pooled") if self.protocol == "ods" else (ods, "ods")
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return tuple(f"{name} needs protocol {other}" for name in idle if getattr(self, name) != defaults[name])

    @property
    def headline(self) -> str:
        """``f_at_Npx``, N the tolerance; ``ods_f`` with the protocol "ods"."""
        return "ods_f" if self.protocol == "ods" else f"f_at_{self.tolerance_px}px"

    def loss(self, sums: Tensor) -> Tensor:
        """() balanced cross-entropy with the fixed weight; 0 where no pixel has a label."""
        return balanced_bce(sums, self.positive_weight)

    def metric(self) -> Metric:
        """With the protocol "pooled": ``f_at_Npx``, ``precision_at_Npx``, ``recall_at_Npx``, ``best_threshold``.

        All in [0, 1]. Counts are pooled over all pictures at each of the thresholds .01, .02 … .99 (probability >
        threshold), and the threshold with the largest F is used, one for the whole set and chosen on it. This is not
        the ODS-F of SEISM or BSDS: predictions are not thinned, a pixel may be matched by several (their matching is
        one to one), and the tolerance is in pixels instead of a share of the picture's diagonal.

        With the protocol "ods": ``ods_f``, ``ods_precision``, ``ods_recall`` at ``best_threshold`` (chosen on the
        evaluated set), ``ods_f_interpolated`` (between thresholds, as BSDS prints it), ``ois_f``, ``ois_precision``,
        ``ois_recall`` (each picture's threshold chosen on its own target), ``ap`` and ``f_at_0_5``, without
        any choice. :class:`~garnish.tasks.metrics.boundaries.BoundaryMetric` defines them exactly.
        """
        if self.protocol == "ods":
            return BoundaryMetric(
                self,
                max_distance=self.max_distance,
                nms=self.nms,
                thin_target=self.thin_target,
                processes=self.processes,
            )
        return EdgesMetric(self)


@final
class EdgesMetric(Totals):
    """Pooled precision, recall and F with a tolerance in pixels, as :meth:`Edges.metric` defines them."""

    predicted: Tensor
    true: Tensor
    pixels: Tensor

    def __init__(self, task: Edges) -> None:
        super().__init__()
        self.task = task
        # Per threshold: matched and all predicted pixels; matched true pixels and, the same everywhere, all of them.
        self.add_total("predicted", 2, len(HUNDREDTHS), dtype=torch.int64)
        self.add_total("true", 2, len(HUNDREDTHS), dtype=torch.int64)
        self.add_total("pixels", dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pictures: logits and {0, 1, 255}, both (B, 1, H, W)."""
        edge, valid = target[:, 0] == 1, target[:, 0] != IGNORE
        probability = torch.where(valid, self.task.decode(prediction), 0.0)
        near_edge = disc_maximum(edge.float(), self.task.tolerance_px) > 0
        near = disc_maximum(probability, self.task.tolerance_px)
        matched = counts_above(probability, valid & near_edge, HUNDREDTHS).sum(0)
        self.add("predicted", torch.stack([matched, counts_above(probability, valid, HUNDREDTHS).sum(0)]))
        found = counts_above(near, edge, HUNDREDTHS).sum(0)
        self.add("true", torch.stack([found, edge.sum().expand_as(found)]))
        self.add("pixels", valid.sum())

    def _by_threshold(self) -> tuple[Tensor, Tensor, Tensor]:
        """(T,) precision, recall and F."""
        precision, recall = precision_recall(*self.predicted.unbind(), *self.true.unbind())
        return precision, recall, f_measure(precision, recall)

    def details(self) -> tuple[Detail, ...]:
        """Precision, recall and F over thresholds; nothing where no pixel has a label."""
        return (over_thresholds(HUNDREDTHS, *self._by_threshold()),) if self.pixels > 0 else ()

    def compute(self) -> dict[str, Tensor]:
        """() float64 values by name."""
        precision, recall, f = self._by_threshold()
        best = f.argmax()
        seen = torch.where(self.pixels > 0, 1.0, torch.nan).double()
        at = f"_at_{self.task.tolerance_px}px"
        return {
            f"f{at}": f[best] * seen,
            f"precision{at}": precision[best] * seen,
            f"recall{at}": recall[best] * seen,
            "best_threshold": f.new_tensor(HUNDREDTHS)[best] * seen,
        }
