"""Reader of depth without a unit: grey renderings of 8 or 16 bits, disparity, ``.npy`` of any numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.checking.bounds import ChannelWeight, RawValue
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.relative_depth_rule import guessed_relative_depth
from garnish.data.labels.planes import check_packed, plane, unpacked
from garnish.data.labels.reader import Reader
from garnish.errors import DataError
from garnish.targets.target import Target
from garnish.targets.unitless import Unitless
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class RelativeDepthReader(Reader):
    """Depth without a unit, one number per pixel, as stored; every number counts, 0 too, but those of ``invalid``.

    Attributes:
        invalid: raw values that mean "no label"; may include NaN.
        packed: weights of red, green and blue, whose weighted sum is a pixel's value; null: one number per pixel.
    """

    kind: ClassVar[str] = "relative_depth"
    target: ClassVar[type[Target]] = Unitless
    default: ClassVar[bool] = True

    invalid: tuple[RawValue, ...] = ()
    packed: tuple[ChannelWeight, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_packed(self.packed)

    @property
    def exact(self) -> bool:
        """True for packed values, where an error in one channel is multiplied by its weight."""
        return self.packed is not None

    @property
    def by_pixel(self) -> bool:
        """True."""
        return True

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """RelativeDepth of disparity; of other smooth numbers a question."""
        return guessed_relative_depth(evidence)

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(1, H, W) float32, NaN where there is no label; numbers as stored."""
        remedy = (
            "a rendering in colours cannot be read: save its numbers as grey; or write `packed: [1, 256, 65536]` where"
            " red, green and blue make up one number"
        )
        values = plane(unpacked(raw, self.packed, file), file, remedy).astype(np.float32)
        known = values.copy()
        for value in self.invalid:
            known[np.isnan(values) if math.isnan(value) else values == np.float32(value)] = 0.0
        for name, bad in (("nan", np.isnan(known)), ("inf", known == np.inf), ("-inf", known == -np.inf)):
            if bad.any():
                raise DataError(
                    f"{file}: {int(bad.sum())} of {bad.size} numbers are {name.upper()}; "
                    f"write `invalid: {name}` in the data description if that means 'no depth', or repair the file"
                )
        for value in self.invalid:
            values[values == np.float32(value)] = np.nan
        return values[None]
