"""Numbers that tell kinds of labels apart: flat regions, borders, thin lines, ends of a range, lengths of vectors.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from garnish.data.guessing.evidence import LabelEvidence


def planes_of(evidence: LabelEvidence) -> list[np.ndarray] | None:
    """The arrays as (H, W) each; None if one holds colours, or more than one number a pixel."""
    found = []
    for raw in evidence.arrays:
        if raw.ndim == 3 and raw.shape[-1] == 3 and (raw == raw[..., :1]).all():
            found.append(raw[..., 0])
        elif raw.ndim == 3 and 1 in (raw.shape[0], raw.shape[-1]):
            found.append(raw[..., 0] if raw.shape[-1] == 1 else raw[0])
        elif raw.ndim == 2:
            found.append(raw)
        else:
            return None
    return [plane for plane in found if plane.size] or None


def change_share(planes: Sequence[np.ndarray]) -> float:
    """Share of pairs of neighbours that differ, over all planes; 0 in flat ones."""
    changes = pairs = 0
    for plane in planes:
        for one, other in ((plane[:, 1:], plane[:, :-1]), (plane[1:], plane[:-1])):
            changes += int((one != other).sum())
            pairs += one.size
    return changes / max(pairs, 1)


def smooth_share(planes: Sequence[np.ndarray]) -> float:
    """Share of the pairs of neighbours that differ by less than 2 % of their plane's range, among those that differ."""
    small = changes = 0
    for plane in planes:
        values = plane.astype(np.float64)
        finite = values[np.isfinite(values)]
        span = float(finite.max() - finite.min()) if finite.size else 0.0
        for one, other in ((values[:, 1:], values[:, :-1]), (values[1:], values[:-1])):
            step = np.abs(one - other)
            changed = np.isfinite(step) & (step > 0)
            changes += int(changed.sum())
            small += int((step[changed] < 0.02 * span).sum())
    return small / max(changes, 1)


def border(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of ``mask`` of which a neighbour to the left, right, above or below lies outside of it."""
    inner = np.ones(mask.shape, bool)
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def thin_share(masks: Sequence[np.ndarray]) -> float:
    """Share of the true pixels that lie at the border of their region: 1 for lines of one or two pixels."""
    total = sum(int(mask.sum()) for mask in masks)
    return sum(int(border(mask).sum()) for mask in masks) / max(total, 1)


def end_share(planes: Sequence[np.ndarray], low: float, high: float) -> float:
    """Share of the pixels within a tenth of the range from one of its ends."""
    span = max(high - low, 1e-12)
    near = sum(int(((p <= low + 0.1 * span) | (p >= high - 0.1 * span)).sum()) for p in planes)
    return near / max(sum(plane.size for plane in planes), 1)
