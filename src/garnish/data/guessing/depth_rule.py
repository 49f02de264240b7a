"""Whether label files are depth, and in which unit: by type, range, share of zeros, and what their folder is called."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence
from garnish.data.guessing.measuring import planes_of, smooth_share
from garnish.data.guessing.words import words_of_place
from garnish.errors import plural

#: Largest number of two bytes, which many tools write for "none".
_FULL = 65535
#: Millimetres of rooms and things: their median lies here, and the farthest is at most 20 m away.
_MEDIAN_MM, _FARTHEST_MM, _NEAREST_MM = (300, 20_000), 20_000, 1500
_ASK = (
    "write `unit: mm`, `unit: cm`, or `scale: metres per step` (KITTI: 0.00390625, TUM: 0.0002, Taskonomy: 0.001953125)"
)


def guessed_depth(evidence: LabelEvidence) -> Guess | None:
    """Depth with its unit, None where the files are none."""
    meaning, levels = evidence.meaning, evidence.levels
    if levels is None or (meaning is not None and meaning.task not in ("Depth", "RelativeDepth")):
        return None
    named = meaning is not None and meaning.task == "Depth"
    planes = planes_of(evidence)
    if planes is None:
        if not named:
            return None
        question = (
            f"{evidence.files[0]} holds colours; write the weights of red, green and blue in the depth under `packed`,"
            " or save the numbers of a rendering as one channel"
        )
        options: dict[str, Json] = {"packed": [1, 256, 65536], "scale": 0.001, "max_metres": 10}
        return Guess("Depth", "depth", options, 0.3, "three channels that differ", question)
    if meaning is not None and not named:
        return None  # disparity
    known = np.concatenate([plane[np.isfinite(plane) & (plane > 0)].ravel()[::7] for plane in planes]).astype(
        np.float64
    )
    if not known.size:
        known = np.ones(1)
    smooth = smooth_share(planes)
    if not named and (smooth < 0.6 or _distinct(planes) < 64 or (levels.high <= 255 and planes[0].dtype.kind != "f")):
        return None
    if any(plane.dtype.kind == "f" for plane in planes):
        return _floats(evidence, planes, float(np.median(known)), named)
    return _integers(evidence, planes, known, named)


def _floats(evidence: LabelEvidence, planes: Sequence[np.ndarray], median: float, named: bool) -> Guess:
    levels = evidence.levels
    assert levels is not None
    why = f"floats from {levels.low:.4g} to {levels.high:.4g}, median {median:.3g}"
    options: dict[str, Json] = {}
    invalid = [mark for mark, there in (("nan", levels.nan), ("inf", levels.infinite)) if there]
    if invalid:
        options["invalid"] = [*invalid]
        why += f", {' and '.join(invalid)} where there is none"
    largest = [
        float(np.nanmax(np.where(np.isfinite(plane), plane, np.nan))) for plane in planes if np.isfinite(plane).any()
    ]
    stretched = sum(value in (1.0, 255.0, 65535.0) for value in largest) > len(planes) / 2
    if stretched and len(planes) > 1:
        question = (
            f"most files end at exactly {largest[0]:g}, as renderings without a unit do; write"
            " `task: RelativeDepth` and `larger: nearer` or `larger: farther`, or `scale: metres per step`"
        )
        return Guess("Depth", "depth", {**options, "scale": 1.0, "max_metres": 10}, 0.4, why, question)
    unit = _unit_of(evidence.place)
    if unit in ("mm", "cm") or median >= 300:
        unit = unit or "mm"
        metres = levels.high * (0.001 if unit == "mm" else 0.01)
        told = {**options, "unit": unit, "max_metres": _whole(metres)}
        return Guess("Depth", "depth", told, 0.6 if named else 0.5, f"{why}: too large for metres, so {unit}")
    told = {**options, "unit": "m", "max_metres": _whole(levels.high)}
    return Guess("Depth", "depth", told, 0.9 if named else 0.7, f"{why}: metres")


def _integers(evidence: LabelEvidence, planes: Sequence[np.ndarray], known: np.ndarray, named: bool) -> Guess:
    levels = evidence.levels
    assert levels is not None
    pixels = sum(plane.size for plane in planes)
    zeros = sum(int((plane <= 0).sum()) for plane in planes) / max(pixels, 1)
    if levels.high <= 255 and all(plane.dtype == np.uint8 for plane in planes):
        question = (
            f"{evidence.files[0]} holds 8-bit depth, whose unit cannot be guessed; write `scale: metres per step`, or"
            " `task: RelativeDepth` with `larger: nearer` or `larger: farther` where it has none"
        )
        why = f"8-bit numbers from {levels.low:.0f} to {levels.high:.0f}"
        return Guess("Depth", "depth", {"scale": 0.001, "max_metres": 10}, 0.35, why, question)
    options: dict[str, Json] = {}
    deepest = levels.high
    marked = known >= _FULL
    if (
        levels.high == _FULL
        and (below := known[~marked]).size
        and float(marked.mean()) > 0.0005
        and below.max() < 60_000
    ):
        options["invalid"] = [_FULL]
        deepest = max(float(plane[plane < _FULL].max()) for plane in planes if (plane < _FULL).any())
        known = below
    median = float(np.median(known))
    why = f"16-bit numbers up to {deepest:.0f}, median {median:.0f}, {zeros:.1%} zero"
    why += ", 65535 where there is none" if options else ""
    unit, low, high = _unit_of(evidence.place), *_MEDIAN_MM
    if unit is not None:
        metres = deepest * {"mm": 0.001, "cm": 0.01, "m": 1.0}[unit]
        told = {**options, "unit": unit, "max_metres": _whole(metres)}
        return Guess("Depth", "depth", told, 0.9, f"{why}; the folder is called {unit}")
    told = {**options, "unit": "mm", "max_metres": _whole(deepest / 1000)}
    if low <= median <= high and _NEAREST_MM <= deepest <= _FARTHEST_MM and zeros < 0.5:
        return Guess("Depth", "depth", told, 0.8 if named else 0.6, f"{why}: millimetres")
    reason = (
        f"{zeros:.0%} of the pixels are zero, as in depth of laser scanners"
        if zeros >= 0.5
        else f"{plural(round(deepest), 'step')} at most, median {median:.0f}"
    )
    question = f"depth in an unknown unit ({reason}); {_ASK}"
    return Guess("Depth", "depth", told, 0.4, why, question)


def _unit_of(place: str) -> str | None:
    """The unit that a word of the pattern names: ``depth_mm``."""
    words = {word for part in place.split("/") for word in words_of_place(part)}
    found = [unit for unit, names in (("mm", {"mm", "millimetres", "millimeters"}), ("cm", {"cm"})) if words & names]
    return found[0] if len(found) == 1 else None


def _distinct(planes: Sequence[np.ndarray]) -> int:
    return max(len(np.unique(plane)) for plane in planes[:4])


def _whole(metres: float) -> float:
    return float(max(1, math.ceil(round(metres, 6))))
