"""Reader of binary masks: 0/1 or 0/255 as stored, grey by a threshold, ids by a list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.checking.bounds import RawId, RawLevel
from garnish.data.guessing.binary_rule import guessed_yes_or_no
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.labels.planes import plane, refuse_nan
from garnish.data.labels.reader import Reader
from garnish.errors import DataError, OptionError
from garnish.targets.target import IGNORE, Target
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class BinaryReader(Reader):
    """A foreground mask: 0/1 or 0/255 as stored, grey levels by ``threshold``, ids by ``positive``.

    Attributes:
        ignore: raw values that mean "no label".
        threshold: grey levels above it are foreground.
        positive: raw ids of the foreground, all others are background; 255 has no label unless listed here.
        inverted: black is foreground and white is not, as in lines drawn on paper; not with ``positive``.
    """

    kind: ClassVar[str] = "binary"
    target: ClassVar[type[Target]] = YesOrNo
    default: ClassVar[bool] = True

    ignore: tuple[RawId, ...] = ()
    threshold: RawLevel | None = None
    positive: tuple[RawId, ...] | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and self.positive is not None:
            raise OptionError("both 'threshold' and 'positive' are given; keep one")
        if self.inverted and self.positive is not None:
            raise OptionError("inverted: does not go with 'positive'; list the other ids there")
        if both := sorted(set(self.ignore) & set(self.positive or ())):
            raise OptionError(f"{both[0]} is listed under 'ignore' and under 'positive'; take it out of one")

    @property
    def exact(self) -> bool:
        """True for ids; small errors in grey levels are harmless."""
        return self.positive is not None

    @property
    def by_pixel(self) -> bool:
        """Where it is said what is foreground; else that follows from all numbers of a file."""
        return self.threshold is not None or self.positive is not None

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """Edges where the true pixels are few and thin, else Saliency."""
        return guessed_yes_or_no(evidence, middle_level(evidence.levels.high if evidence.levels else 255))

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(1, H, W) float32 in {0, 1, 255 = no label}."""
        values = plane(raw, file, "save one number per pixel")
        refuse_nan(values, file, "`threshold` cannot place it; write 0 or 255 there")
        ignored = np.isin(values, self.ignore) if self.ignore else np.zeros(values.shape, bool)
        if self.positive is not None:
            front = np.isin(values, self.positive)
            if IGNORE not in self.positive:
                ignored |= values == IGNORE
        elif self.threshold is not None:
            # one bit is black or white, which as a grey level is 0 or 255
            front = (values.astype(np.uint8) * 255 if values.dtype == bool else values) > self.threshold
        else:
            front = _foreground_as_stored(values, ignored, file)
        if self.inverted:
            front = ~front
        target = front.astype(np.float32)
        target[ignored] = IGNORE
        return target[None]


def _foreground_as_stored(plane: np.ndarray, ignored: np.ndarray, path: Path) -> np.ndarray:
    if plane.dtype == bool:
        return plane
    kept = plane[~ignored]
    found = np.flatnonzero(np.bincount(kept)) if kept.dtype.kind == "u" and kept.itemsize < 4 else np.unique(kept)
    values = {float(v) for v in found}
    front: np.ndarray = plane == 1
    if values <= {0.0, 1.0}:
        return front
    if values <= {0.0, 255.0}:
        front = plane == IGNORE
        return front
    if values <= {0.0, 1.0, 255.0}:
        raise DataError(f"{path}: holds 0, 1 and 255; write `ignore: 255` if 255 means 'no label', else `threshold: 0`")
    low, high = min(values - {0.0}), max(values)
    raise DataError(
        f"{path}: expected 0/1 or 0/255, found {len(values)} values up to {high:g} (the first above 0 is {low:g}); "
        f"write `threshold: {middle_level(high):g}` for grey levels or `positive: [ids]` for an id map"
    )


def middle_level(largest: float) -> float:
    """Middle of the range of grey levels that holds ``largest``: 0 to 1, 0 to 255 or 0 to 65535."""
    return 0.5 if largest <= 1 else 127 if largest <= IGNORE else 32767
