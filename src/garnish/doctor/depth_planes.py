"""The numbers of depth files as they are stored, with what they mean in metres.

Shape letters: H W pixels.
"""

from __future__ import annotations

import math

import numpy as np

from garnish.data.labels.depth import DepthReader
from garnish.data.labels.planes import plane, unpacked
from garnish.doctor.looked import Looked
from garnish.errors import DataError


def stored_depth(seen: Looked, task: str) -> tuple[np.ndarray, DepthReader] | None:
    """(H, W) numbers of a depth file, and its reader; None: no depth file of one number a pixel, or it is unreadable.

    They are not to be modified.
    """

    def read() -> tuple[np.ndarray, DepthReader] | None:
        reader, stored = seen.reader(task), seen.stored(task)
        if not isinstance(reader, DepthReader) or not isinstance(stored, np.ndarray) or stored.dtype.kind not in "uif":
            return None
        try:
            numbers = plane(unpacked(stored, reader.packed, seen.files[task]), seen.files[task], "")
        except DataError:
            return None
        return (numbers, reader) if numbers.size else None

    return seen.once(("stored depth", task), read) if task in seen.files else None


def measured_depth(seen: Looked, task: str) -> np.ndarray | None:
    """(n,) :func:`measured_numbers` of :func:`stored_depth`; None as there."""

    def read() -> np.ndarray | None:
        found = stored_depth(seen, task)
        return None if found is None else measured_numbers(*found)

    return seen.once(("measured depth", task), read)


def measured_numbers(numbers: np.ndarray, reader: DepthReader) -> np.ndarray:
    """(n,) the numbers above 0 that are finite and not listed as ``invalid``."""
    flat = numbers.ravel()
    kept = flat > 0
    if flat.dtype.kind == "f":
        kept &= np.isfinite(flat)
    for value in reader.invalid:
        if not math.isnan(value):
            kept &= flat != value
    found: np.ndarray = flat[kept]
    return found
