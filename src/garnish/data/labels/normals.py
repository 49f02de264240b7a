"""Reader of surface normals, stored as RGB or as floats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.checking.bounds import RawValue
from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.normals_rule import guessed_normals
from garnish.data.labels.planes import refuse_nan
from garnish.data.labels.reader import Reader
from garnish.errors import DataError, OptionError
from garnish.targets.target import Target
from garnish.targets.unit_vectors import UnitVectors
from garnish.tasks.task import Task

#: Vectors shorter than this are not normals but a background colour such as mid-grey.
_SHORTEST = 0.1
_AXES = re.compile(r"x\s+(right|left)\s*,\s*y\s+(down|up)\s*,\s*z\s+(forward|backward)")


@final
@dataclass(frozen=True, kw_only=True)
class NormalsReader(Reader):
    """Normals as RGB (8 bits: n = 2v/255 − 1, black = no label; 16 bits likewise) or floats in [−1, 1].

    Attributes:
        invalid: raw values that mean "no label" if all three channels have them; may include NaN.
        flip: axes to negate, so that they become x right, y down, z forward.
        axes: instead of ``flip``, the axes of the files, such as "x right, y up, z backward".
    """

    kind: ClassVar[str] = "normals"
    target: ClassVar[type[Target]] = UnitVectors
    default: ClassVar[bool] = True

    invalid: tuple[RawValue, ...] = ()
    flip: tuple[str, ...] = ()
    axes: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.flip) - set("xyz") or len(set(self.flip)) != len(self.flip):
            raise OptionError(f"flip: expected some of x, y, z, got {list(self.flip)}")
        if self.axes is None:
            return
        if self.flip:
            raise OptionError("both 'axes' and 'flip' are given; keep one")
        if _AXES.fullmatch(self.axes.strip().lower()) is None:
            form = "x right|left, y down|up, z forward|backward"
            raise OptionError(f"axes: expected the form {form!r}, got {self.axes!r}; swapped axes are not supported")

    @property
    def flipped(self) -> tuple[str, ...]:
        """Axes to negate."""
        match = None if self.axes is None else _AXES.fullmatch(self.axes.strip().lower())
        if match is None:
            return self.flip
        ours = ("right", "down", "forward")
        return tuple(axis for axis, word, own in zip("xyz", match.groups(), ours, strict=True) if word != own)

    def resolved(self, task: Task) -> Mapping[str, Json]:
        """The options, with ``axes`` converted to ``flip``."""
        return {**super().resolved(task), "axes": None, "flip": self.flipped}

    @classmethod
    def guess(cls, evidence: LabelEvidence) -> Guess | None:
        """Normals from vectors of length 1, with axes from where cameras see them."""
        return guessed_normals(evidence)

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(3, H, W) float32 unit vectors; zero: no label."""
        if raw.ndim == 3 and raw.shape[-1] != 3 and raw.shape[0] == 3:
            raw = np.moveaxis(raw, 0, -1)
        if raw.ndim != 3 or raw.shape[-1] != 3:
            raise DataError(
                f"{file}: normals need three channels, found shape {raw.shape}; save x, y, z as RGB or as .npy"
            )
        none = (raw == 0).all(-1)
        for value in self.invalid:
            none |= (np.isnan(raw) if np.isnan(value) else raw == value).all(-1)
        vectors = raw.astype(np.float32)
        if raw.dtype in (np.uint8, np.uint16):
            vectors = vectors * np.float32(2 / np.iinfo(raw.dtype).max) - 1
        elif raw.dtype.kind != "f":
            raise DataError(f"{file}: normals stored as {raw.dtype}; save them as 8-bit RGB or as floats in [-1, 1]")
        vectors[none] = 0.0
        meant = (np.isnan(vectors).all(-1) | np.isfinite(vectors).all(-1)).all()
        remedy = (
            "write `invalid: nan` in the data description if that means 'no normal'" if meant else "repair the file"
        )
        refuse_nan(vectors, file, remedy)
        largest = float(np.abs(vectors).max())
        if largest > 1.01:
            raise DataError(
                f"{file}: a normal has the component {largest:g}; scale floats to [-1, 1], or save 8-bit RGB"
            )
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors = np.where(length < _SHORTEST, 0.0, vectors / np.maximum(length, _SHORTEST))
        for axis in self.flipped:
            vectors[..., "xyz".index(axis)] *= -1.0
        # + 0: no negative zeros
        return np.ascontiguousarray(np.moveaxis(vectors, -1, 0).astype(np.float32)) + np.float32(0.0)
