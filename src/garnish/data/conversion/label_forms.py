"""The files that labels of each kind of target are written as, and that they read back the same.

Shape letters: H W pixels, C channels of the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.labels.choosing import reader_of
from garnish.data.labels.depth import DepthReader
from garnish.data.labels.labelled import Labelled
from garnish.data.labels.normals import NormalsReader
from garnish.data.labels.reader import decode
from garnish.errors import DataError
from garnish.targets.class_ids import ClassIds
from garnish.targets.distances import Distances
from garnish.targets.target import IGNORE
from garnish.targets.unit_vectors import UnitVectors
from garnish.targets.unitless import Unitless
from garnish.targets.yes_or_no import YesOrNo

#: Grey of pixels without a label beside black and white.
NO_LABEL_GREY = 128
#: Metres that depth in whole millimetres is off at most.
_HALF_MILLIMETRE = 0.0005
#: Components of normals change in their last digit when they are normalised anew.
_LAST_DIGIT = 3e-7


@final
@dataclass(frozen=True, eq=False)
class LabelForm:
    """One way to write the labels of a task.

    Attributes:
        suffix: of the files.
        told: what they hold, for people.
        options: of the reader that reads them.
        encode: values of a target → the numbers of the file, None where they have no place there; None: the files of
            the source are copied as they are.
        within: how far values that are read back may be off.
    """

    suffix: str
    told: str
    options: Mapping[str, Json] = field(default_factory=dict)
    encode: Callable[[np.ndarray], np.ndarray | None] | None = None
    within: float = 0.0

    def written(self, values: np.ndarray, entry: Labelled, file: Path) -> np.ndarray | None:
        """The numbers of a file that reads back as a target; None: this form cannot hold it."""
        assert self.encode is not None
        raw = self.encode(values)
        if raw is None:
            return None
        reader = reader_of({"labels": "{name}" + self.suffix, **self.options}, entry.task, "convert")
        back = decode(raw.copy(), reader, file, entry.task)
        missing = entry.task.target.missing
        none, none_back = (np.isnan(x) if np.isnan(missing) else x == missing for x in (values, back))
        if back.shape != values.shape or (none != none_back).any():
            return None
        off = np.abs(np.where(none, 0, back) - np.where(none, 0, values)).max(initial=0)
        return raw if off <= self.within else None


def label_forms(entry: Labelled, name: str, *, suffix: str | None, rounds_depth: bool) -> Sequence[LabelForm]:
    """The forms of a task's labels, the smallest first; the first that holds all of them is to be taken.

    Args:
        entry: the task and its reader in the source.
        name: of the task, for the message.
        suffix: of the source's label files; None: they cannot be copied.
        rounds_depth: take whole millimetres where they are off by half a millimetre at most.

    Raises:
        DataError: a kind of target that has no form.
    """
    target = entry.task.target
    if target is ClassIds:
        return (LabelForm(".png", f"ids, {IGNORE} is no label", {}, lambda ids: ids.astype(np.uint8)),)
    if target is YesOrNo:
        grey = {"positive": [255], "ignore": [NO_LABEL_GREY]}
        return (LabelForm(".png", f"0 or 255, {NO_LABEL_GREY} is no label", grey, _as_grey),)
    if target is Distances:
        forms = [LabelForm(".png", "16 bits, millimetres, 0 is none", {"unit": "mm"}, lambda m: _steps(m, 0.001))]
        step = entry.labels.metres if isinstance(entry.labels, DepthReader) else None
        if rounds_depth:
            forms[0] = LabelForm(
                ".png",
                "16 bits, rounded to millimetres, 0 is none",
                {"unit": "mm"},
                lambda m: _steps(m, 0.001),
                _HALF_MILLIMETRE * 1.001,
            )
        elif step is not None and step != 0.001:
            told = f"16 bits, steps of {step:g} m, 0 is none"
            forms.append(LabelForm(".png", told, {"scale": step}, lambda m: _steps(m, step)))
        return (*forms, LabelForm(".npy", "float32 metres, 0 is none", {}, lambda metres: metres[0]))
    if target is Unitless:
        whole = LabelForm(".png", "16 bits, 0 is none", {"invalid": [0]}, _as_whole)
        return (whole, LabelForm(".npy", "float32, nan is none", {"invalid": ["nan"]}, lambda numbers: numbers[0]))
    if target is UnitVectors:
        vectors = LabelForm(
            ".npy", "float32 (H, W, 3), 0 is none", {}, lambda v: np.moveaxis(v, 0, -1), within=_LAST_DIGIT
        )
        reader = entry.labels
        if type(reader) is not NormalsReader or suffix is None or reader.orientation == "stored":
            return (vectors,)
        kept: dict[str, Json] = {"flip": list(reader.flipped)} if reader.flipped else {}
        if reader.invalid:
            kept["invalid"] = ["nan" if np.isnan(value) else value for value in reader.invalid]
        return (LabelForm(suffix, "copied as they are", kept), vectors)
    raise DataError(
        f"convert: tasks.{name}: {entry.task.target.__name__} has no form that other tools read; name the other tasks"
        " by --tasks"
    )


def _as_grey(values: np.ndarray) -> np.ndarray:
    """(1, H, W) in {0, 1, 255} → (H, W) uint8."""
    grey: np.ndarray = np.where(values == IGNORE, NO_LABEL_GREY, values * 255)[0].astype(np.uint8)
    return grey


def _steps(metres: np.ndarray, step: float) -> np.ndarray | None:
    """(1, H, W) metres → (H, W) uint16 of a step, None if they are too far."""
    steps = np.rint(metres[0].astype(np.float64) / step)
    return steps.astype(np.uint16) if steps.max(initial=0) <= 65535 else None


def _as_whole(numbers: np.ndarray) -> np.ndarray | None:
    """(1, H, W) floats → (H, W) uint16, 0 for NaN; None if some are not whole numbers from 1 to 65535."""
    known = np.nan_to_num(numbers[0], nan=1.0)
    if not ((known >= 1) & (known <= 65535) & (known == np.rint(known))).all():
        return None
    whole: np.ndarray = np.nan_to_num(numbers[0], nan=0.0).astype(np.uint16)
    return whole
