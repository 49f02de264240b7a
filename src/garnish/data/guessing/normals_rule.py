"""Whether label files are surface normals, by their length, and which way their axes point.

What a camera sees faces it: n · d < 0 for the direction d from the camera through the pixel. So over many pixels the
horizontal part of a normal falls with the column if x points right, and rises if it points left; alike for rows.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.guessing.evidence import Guess, LabelEvidence

#: Largest error of a length that counts as 1, by the bytes of a number; and the share of the pixels that must have it.
_ERROR, _SHARE = {1: 0.03, 2: 0.02, 4: 0.02, 8: 0.02}, 0.95
#: Correlation with the column or row below which an axis cannot be told.
_WEAK = 0.15


def guessed_normals(evidence: LabelEvidence) -> Guess | None:
    """Normals with their axes, None where the files are none."""
    meaning = evidence.meaning
    if meaning is not None and meaning.task != "Normals" and not meaning.generic:
        return None
    if not evidence.arrays:
        return None
    fields = [_field(raw) for raw in evidence.arrays]
    if any(field is None for field in fields):
        if meaning is None or meaning.task != "Normals":
            return None
        shape = next(raw.shape for raw, field in zip(evidence.arrays, fields, strict=True) if field is None)
        question = f"normals need three channels, found shape {shape}; save x, y, z as RGB or as .npy"
        return Guess("Normals", "normals", {}, 0.3, f"shape {shape}", question)
    vectors = [field for field in fields if field is not None]
    error = _ERROR[evidence.arrays[0].dtype.itemsize]
    known = [np.isfinite(v).all(-1) & (v != 0).any(-1) for v in vectors]
    lengths = np.concatenate([np.linalg.norm(v[k], axis=-1) for v, k in zip(vectors, known, strict=True)])
    unit = float((np.abs(lengths - 1) < error).mean()) if lengths.size else 0.0
    why = f"{unit:.1%} of the vectors have length 1"
    if unit < _SHARE or lengths.size < 16:
        if meaning is None or meaning.task != "Normals":
            return None
        question = (
            f"only {why} within {error:g} when read as n = 2v/255 - 1 (or as floats); check that"
            " these are normals, then write `task: Normals` with their `axes`"
        )
        return Guess("Normals", "normals", {}, 0.4, why, question)
    options: dict[str, Json] = {}
    if evidence.levels is not None and evidence.levels.nan:
        options["invalid"] = ["nan"]
        why += ", nan where there is none"
    return _with_axes(vectors, known, options, why, meaning is not None and not meaning.generic)


def _with_axes(
    vectors: Sequence[np.ndarray], known: Sequence[np.ndarray], options: dict[str, Json], why: str, named: bool
) -> Guess:
    x, y = (_along(vectors, known, axis) for axis in (0, 1))
    z = float(np.concatenate([v[k][:, 2] for v, k in zip(vectors, known, strict=True)]).mean())
    ways = ("left" if x > _WEAK else "right", "up" if y > _WEAK else "down", "backward" if z > 0 else "forward")
    axes = f"x {ways[0]}, y {ways[1]}, z {ways[2]}"
    options["axes"] = axes
    why += f"; x with columns {x:+.2f}, y with rows {y:+.2f}, mean z {z:+.2f}: {axes}"
    unclear = [name for name, value in (("x", x), ("y", y)) if abs(value) <= _WEAK]
    question = None
    if abs(z) < 0.1:
        unclear.append("z")
    if unclear:
        question = (
            f"the direction of {' and '.join(unclear)} cannot be told from the files; check `axes: {axes}` against the"
            " tool that made them"
        )
    sure = 0.95 if named else 0.85
    return Guess(
        "Normals", "normals", options, sure if not unclear else 0.6 if "z" not in unclear else 0.4, why, question
    )


def _along(vectors: Sequence[np.ndarray], known: Sequence[np.ndarray], axis: int) -> float:
    """Correlation of a component of the normals with the column (axis 0) or row (axis 1), from -1 to 1."""
    parts, places = [], []
    for v, k in zip(vectors, known, strict=True):
        height, width = k.shape
        if axis == 0:
            place = np.broadcast_to(np.linspace(-1, 1, width), (height, width))
        else:
            place = np.broadcast_to(np.linspace(-1, 1, height)[:, None], (height, width))
        parts.append(v[k][:, axis])
        places.append(place[k])
    part, place = np.concatenate(parts), np.concatenate(places)
    if part.std() < 1e-3 or place.std() < 1e-3:
        return 0.0
    return float(np.corrcoef(part, place)[0, 1])


def _field(raw: np.ndarray) -> np.ndarray | None:
    """(H, W, 3) float64 vectors as :class:`~garnish.data.labels.normals.NormalsReader` reads them, None of other shape.

    Black pixels become zero.
    """
    if raw.ndim == 3 and raw.shape[-1] != 3 and raw.shape[0] == 3:
        raw = np.moveaxis(raw, 0, -1)
    if raw.ndim != 3 or raw.shape[-1] != 3 or raw.size == 0 or raw.dtype.kind not in "uf":
        return None
    step = max(1, int(max(raw.shape[:2]) / 512))
    raw = raw[::step, ::step]
    vectors = raw.astype(np.float64)
    if raw.dtype in (np.uint8, np.uint16):
        vectors = vectors * (2 / np.iinfo(raw.dtype).max) - 1
        vectors[(raw == 0).all(-1)] = 0.0
    elif raw.dtype.kind != "f":
        return None
    return vectors
