"""Reader of depth maps, in metres or in steps of a unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, final

import numpy as np

from garnish.checking.bounds import ChannelWeight, RawValue
from garnish.checking.plain_data import Json, reals
from garnish.data.guessing.depth_rule import guessed_depth
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.labels.planes import check_packed, plane, unpacked
from garnish.data.labels.reader import Reader
from garnish.errors import DataError, OptionError
from garnish.targets.distances import Distances
from garnish.targets.target import Target
from garnish.tasks.task import Task

#: Metres per step of a unit.
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}


@final
@dataclass(frozen=True, kw_only=True)
class DepthReader(Reader):
    """Depth, one number per pixel; values ≤ 0 have no label.

    Attributes:
        unit: "m", "cm" or "mm" per step.
        scale: metres per step, instead of ``unit``; without both, floats are in metres and integer files are rejected.
        invalid: raw values that mean "no label"; may include NaN.
        packed: weights of red, green and blue, whose weighted sum is a pixel's value; null: one number per pixel.
    """

    kind: ClassVar[str] = "depth"
    target: ClassVar[type[Target]] = Distances
    default: ClassVar[bool] = True

    unit: str | None = None
    scale: Annotated[float, reals(1e-12, 1e12)] | None = None
    invalid: tuple[RawValue, ...] = ()
    packed: tuple[ChannelWeight, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit is not None and self.scale is not None:
            raise OptionError("both 'unit' and 'scale' are given; keep one")
        if self.unit is not None and self.unit not in UNITS:
            raise OptionError(f"unit: unknown unit {self.unit!r}; available: {', '.join(UNITS)}")
        check_packed(self.packed)

    @property
    def metres(self) -> float | None:
        """Metres per step; None: files of floats in metres."""
        return self.scale if self.unit is None else UNITS[self.unit]

    @property
    def exact(self) -> bool:
        """True for packed values, where an error in one channel is multiplied by its weight."""
        return self.packed is not None

    def resolved(self, task: Task) -> Mapping[str, Json]:
        """The options, with ``unit`` converted to ``scale``."""
        return {**super().resolved(task), "unit": None, "scale": self.metres}

    @property
    def by_pixel(self) -> bool:
        """True."""
        return True

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """Depth with a unit from type, range, share of zeros and the name of the folder."""
        return guessed_depth(evidence)

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(1, H, W) float32 metres; 0, negative and ``invalid`` values become 0."""
        remedy = "write `packed: [1, 256, 65536]`, the weights of red, green and blue in one number"
        values = plane(unpacked(raw, self.packed, file), file, remedy)
        if self.metres is None and values.dtype.kind != "f":
            raise DataError(
                f"{file}: depth in whole numbers has no unit; write `unit: mm` (or m, cm, or `scale: metres per step`),"
                " or `task: RelativeDepth` where it has none"
            )
        metres = values.astype(np.float32)
        for value in self.invalid:
            metres[np.isnan(metres) if math.isnan(value) else metres == np.float32(value)] = 0.0
        if values.dtype.kind == "f" and not np.isfinite(metres).all():
            infinite = (("nan", np.isnan(metres)), ("inf", metres == np.inf), ("-inf", metres == -np.inf))
            name, bad = next((name, bad) for name, bad in infinite if bad.any())
            raise DataError(
                f"{file}: {int(bad.sum())} of {bad.size} depths are {name.upper()}; "
                f"write `invalid: {name}` in the data description if that means 'no depth', or repair the file"
            )
        if self.metres is not None:
            # In float64, then rounded once: 2600 mm must not become more than 2.6 m.
            metres = (metres.astype(np.float64) * self.metres).astype(np.float32)
        return np.maximum(metres, 0.0, out=metres)[None]
