"""Semantic segmentation task: one class per pixel; also human parts, and thin classes such as cracks.

Shape letters: B pictures, H W pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from garnish.checking.bounds import Pixels, Weight
from garnish.checking.plain_data import integers, lengths, reals
from garnish.decodings.classes import Classes
from garnish.decodings.decoding import Decoding
from garnish.errors import DataError, OptionError, plural
from garnish.reporting.class_tables import ClassTable, Confusion
from garnish.reporting.detail import Detail
from garnish.targets.class_ids import ClassIds
from garnish.targets.target import IGNORE, Target
from garnish.tasks.metrics.confusion import class_iou, confusion_matrix, pixel_accuracy
from garnish.tasks.metrics.tolerance import disc_maximum, f_measure, precision_recall
from garnish.tasks.metrics.totals import Totals
from garnish.tasks.task import Role, Task


@final
@dataclass(frozen=True, kw_only=True)
class Semantic(Task):
    """One class per pixel. Targets hold ids below the class count, and 255 where there is no label.

    Loss: ``cross_entropy · Σ w_y (1 − p_y)^γ (−ln p_y) / Σ w_y + dice · (1 − mean soft Dice)`` over labelled pixels,
    p the softmax, y the label. With γ = 0 the first term is weighted cross-entropy, else the focal loss (Lin et al.
    2017, eq. 5). Soft Dice of a class is 2 Σ p t / (Σ p + Σ t), pooled over all pictures of a step; the mean is over
    the classes in their targets.

    Human parts as on PASCAL-Context: ``Semantic(classes=7, weight=2, void_if_only_background=True)``.

    Attributes:
        classes: class names in the order of their ids, or only their number; 2 to 255.
        class_weights: w, one per class; none: all 1.
        cross_entropy: factor of the cross-entropy or focal term.
        focal_gamma: γ; 0: plain cross-entropy.
        dice: factor of the Dice term.
        f1_class: name or id of a class whose F1 becomes the headline metric instead of mIoU.
        f1_tolerance_px: a pixel of that class is correct if the other map has one within this Euclidean distance.
        void_if_only_background: leave a picture whose map has no id but 0 (and 255) out of loss and metric; in
            training the map of the crop decides.

    Example:
        >>> task = gn.Semantic(classes=("road", "sky"))
        >>> task.channels, task.label_names
        (2, ('road', 'sky'))
    """

    pipeline_tag: ClassVar[str | None] = "image-segmentation"
    higher_is_better: ClassVar[bool] = True
    target: ClassVar[type[Target]] = ClassIds
    roles: ClassVar[Mapping[str, Role]] = {
        "classes": "names",
        "class_weights": "loss",
        "cross_entropy": "loss",
        "focal_gamma": "loss",
        "dice": "loss",
        "f1_class": "metric",
        "f1_tolerance_px": "metric",
        "void_if_only_background": "counted",
    }

    classes: Annotated[int, integers(1, IGNORE)] | Annotated[tuple[str, ...], lengths(1, IGNORE)]
    class_weights: tuple[Weight, ...] | None = None
    cross_entropy: Weight = 1.0
    focal_gamma: Annotated[float, reals(0, 100)] = 0.0
    dice: Weight = 0.0
    f1_class: str | Annotated[int, integers(0, IGNORE - 1)] | None = None
    f1_tolerance_px: Pixels = 2
    void_if_only_background: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.names
        if len(names) == 1:
            raise OptionError(f"Semantic.classes: 1 class; set 2 to {IGNORE} (Saliency is for one yes-or-no map)")
        if len(set(names)) < len(names):
            twice = sorted({n for n in names if names.count(n) > 1})
            raise OptionError(f"Semantic.classes: {', '.join(twice)} named twice; give every class its own name")
        if self.class_weights is not None:
            if len(self.class_weights) != len(names):
                raise OptionError(
                    f"Semantic.class_weights: {plural(len(self.class_weights), 'weight')}, {len(names)} classes;"
                    " give one per class"
                )
            if not any(self.class_weights):
                raise OptionError(f"Semantic.class_weights: {plural(len(names), 'weight')} of 0; set them, not all 0")
        if self.cross_entropy == 0 and self.dice == 0:
            raise OptionError("Semantic: cross_entropy and dice are both 0, so there is no loss; raise one of them")
        if self.f1_class is not None:
            known = names if isinstance(self.f1_class, str) else range(len(names))
            if self.f1_class not in known:
                raise OptionError(f"Semantic.f1_class: no class {self.f1_class!r}; classes: {', '.join(names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names; ``class 0``, ``class 1``, … where only the number was given."""
        if isinstance(self.classes, int):
            return tuple(f"class {k}" for k in range(min(self.classes, IGNORE + 1)))
        return tuple(self.classes)

    @property
    def decoding(self) -> Decoding:
        """The class of the largest logit."""
        return Classes(names=self.names)

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The class names; None if only their number was given, or only names such as "class 0"."""
        numbered = tuple(f"class {k}" for k in range(self.channels))
        return None if self.names == numbered else self.names

    @property
    def idle_options(self) -> tuple[str, ...]:
        """Options that were set but need ``f1_class`` or the cross-entropy, which is not used."""
        found = ["f1_tolerance_px needs f1_class"] * (self.f1_class is None and self.f1_tolerance_px != 2)
        if self.cross_entropy == 0:
            found += ["class_weights needs cross_entropy above 0"] * (self.class_weights is not None)
            found += ["focal_gamma needs cross_entropy above 0"] * (self.focal_gamma > 0)
        return tuple(found)

    @property
    def f1_index(self) -> int | None:
        """Id of ``f1_class``."""
        return self.names.index(self.f1_class) if isinstance(self.f1_class, str) else self.f1_class

    @property
    def headline(self) -> str:
        """``miou``, or the F1 of ``f1_class`` at its tolerance if one is set."""
        return "miou" if self.f1_class is None else f"f1_at_{self.f1_tolerance_px}px"

    @property
    def channels(self) -> int:
        """Number of classes, each with a map of logits."""
        return len(self.names)

    def labels(self, target: Tensor) -> Tensor:
        """(B, H, W) ``target``, without the labels of pictures that ``void_if_only_background`` leaves out."""
        if not self.void_if_only_background:
            return target
        some = ((target != 0) & (target != IGNORE)).flatten(1).any(1)
        return torch.where(some[:, None, None], target, IGNORE)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,) Σ w (1 − p)^γ (−ln p), Σ w; with Dice also, class by class, Σ p t, Σ p and Σ t: (2 + 3C,)."""
        assert prediction.shape[1] == self.channels, f"{prediction.shape[1]} maps for {self.channels} classes"
        logits, target = prediction.float(), self.labels(target).long()
        valid = target != IGNORE
        nll = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        terms = nll
        if self.focal_gamma > 0:
            # The bound keeps the power's slope finite where γ < 1 and p = 1.
            terms = nll * (-torch.expm1(-nll)).clamp_min(1e-6) ** self.focal_gamma
        weights = valid.float()
        if self.class_weights is not None:
            weights = weights * logits.new_tensor(self.class_weights)[torch.where(valid, target, 0)]
        first = torch.stack([(terms * weights).sum(), weights.sum()])
        if self.dice == 0:
            return first
        p = logits.softmax(1) * valid[:, None]
        t = target[:, None] == torch.arange(self.channels, device=target.device)[:, None, None]
        return torch.cat([first, (p * t).sum((0, 2, 3)), p.sum((0, 2, 3)), t.sum((0, 2, 3)).float()])

    def loss(self, sums: Tensor) -> Tensor:
        """() the loss as the class defines it; 0 where no pixel has a label."""
        total = self.cross_entropy * sums[0] / torch.where(sums[1] > 0, sums[1], 1.0)
        if self.dice == 0:
            return total
        both, predicted, true = sums[2:].reshape(3, -1).unbind()
        present = true > 0
        scores = torch.where(present, 2 * both / (predicted + true.clamp_min(1)), 0.0)
        num_present = present.sum()
        return total + self.dice * torch.where(num_present > 0, 1 - scores.sum() / num_present.clamp_min(1), 0.0)

    def metric(self) -> Metric:
        """``miou``, ``pixel_accuracy``, ``iou/NAME`` in [0, 1], from one confusion matrix over all pictures.

        A class that occurs in neither targets nor predictions is left out of the mean (its own value is NaN); one that
        is only predicted counts as 0. The PASCAL-Context multi-task literature counts the former as 0, too; if every
        class occurs, as in that benchmark, there is no difference.

        With ``f1_class`` also ``f1_at_Npx``, ``precision_at_Npx``, ``recall_at_Npx``, from counts over all pictures.
        """
        return SemanticMetric(self)

    def check_target(self, target: Tensor, where: str) -> None:
        """Raise DataError unless ``target`` is (H, W) integer ids below the class count, or 255."""
        if target.ndim != 2 or target.is_floating_point():
            raise DataError(f"{where}: expected integer ids (H, W), got {target.dtype} of shape {tuple(target.shape)}")
        target = target.as_subclass(Tensor)
        if target.numel() and target.min() >= 0 and target.max() < self.channels:
            return
        wrong = target[((target < 0) | (target >= self.channels)) & (target != IGNORE)]
        bad, pixels = (values.tolist() for values in torch.unique(wrong, return_counts=True))
        if bad:
            shown = ", ".join(f"{value} ({count} pixels)" for value, count in zip(bad[:8], pixels, strict=False))
            shown += f" … ({len(bad)} in all)" if len(bad) > 8 else ""
            one_up = bad == [self.channels] and not bool((target == 0).any())
            first = "`offset: -1` if ids count from 1, else " if one_up else ""
            raise DataError(
                f"{where}: label ids {shown}, but the {self.channels} classes are 0 to {self.channels - 1}"
                f" ({IGNORE} = no label); write {first}`ignore: {bad[0]}`, list it under `map`, or add the class"
            )

    def decode(self, prediction: Tensor) -> Tensor:
        """Logits (B, C, H, W) → ids (B, H, W) uint8."""
        return prediction.argmax(1).to(torch.uint8)


@final
class SemanticMetric(Totals):
    """Mean and class IoU, pixel accuracy and the F1 of one class, as :meth:`Semantic.metric` defines them."""

    matrix: Tensor
    thin: Tensor

    def __init__(self, task: Semantic) -> None:
        super().__init__()
        self.task = task
        self.add_total("matrix", task.channels, task.channels, dtype=torch.int64)
        # Of f1_class: matched and all predicted pixels, matched and all true pixels.
        self.add_total("thin", 4, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pictures: logits (B, C, H, W) and ids (B, H, W)."""
        predicted, true = prediction.argmax(1), self.task.labels(target)
        self.add("matrix", confusion_matrix(predicted, true, self.task.channels))
        if (index := self.task.f1_index) is not None:
            p, t = (predicted == index) & (true != IGNORE), true == index
            near_p = disc_maximum(p.float(), self.task.f1_tolerance_px) > 0
            near_t = disc_maximum(t.float(), self.task.f1_tolerance_px) > 0
            self.add("thin", torch.stack([(p & near_t).sum(), p.sum(), (t & near_p).sum(), t.sum()]))

    def compute(self) -> dict[str, Tensor]:
        """() float64 values by name."""
        iou = class_iou(self.matrix)
        values = {"miou": iou.nanmean(), "pixel_accuracy": pixel_accuracy(self.matrix)}
        if self.task.f1_index is not None:
            precision, recall = precision_recall(*self.thin.unbind())
            seen = torch.where(self.matrix.sum() > 0, 1.0, torch.nan)
            at = f"_at_{self.task.f1_tolerance_px}px"
            values |= {
                f"f1{at}": f_measure(precision, recall) * seen,
                f"precision{at}": precision * seen,
                f"recall{at}": recall * seen,
            }
        return values | {f"iou/{name}": value for name, value in zip(self.task.names, iou, strict=True)}

    def details(self) -> tuple[Detail, ...]:
        """The classes, and which are taken for which."""
        names, counts = self.task.names, self.matrix.cpu().numpy()
        return ClassTable(classes=names, counts=counts), Confusion(classes=names, counts=counts)
