"""The numbers of a label file as one plane: grey, colours as numbers, whole numbers, none that are NaN.

Shape letters: H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from garnish.errors import DataError, OptionError


def plane(raw: np.ndarray, path: Path, remedy: str) -> np.ndarray:
    """The one channel of a map; three equal channels are one; of colours ``remedy`` is what to do."""
    if raw.ndim == 3 and raw.shape[-1] == 1:
        raw = raw[..., 0]
    elif raw.ndim == 3 and raw.shape[0] == 1 and raw.shape[-1] != 3:
        raw = raw[0]
    if raw.ndim == 2:
        return raw
    if is_coloured(raw):
        raise DataError(f"{path}: holds colours where one number a pixel is expected; {remedy}")
    if raw.ndim == 3 and raw.shape[-1] == 3:
        return raw[..., 0]
    raise DataError(f"{path}: expected one number a pixel, found an array of shape {raw.shape}; save (height, width)")


def is_coloured(raw: np.ndarray) -> bool:
    """Whether it has three channels that are not all equal."""
    if raw.ndim != 3 or raw.shape[-1] != 3:
        return False
    return bool((raw[..., 0] != raw[..., 1]).any() or (raw[..., 0] != raw[..., 2]).any())


def colour_codes(raw: np.ndarray, path: Path) -> np.ndarray:
    """(H, W, 3) uint8 → (H, W) int64, one number a colour; a grey map is R = G = B."""
    if raw.dtype == bool:
        raw = raw.astype(np.uint8) * np.uint8(255)
    if raw.dtype != np.uint8 or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[-1] != 3):
        raise DataError(f"{path}: expected 8-bit RGB colours, found {raw.dtype} of shape {raw.shape}; save such a PNG")
    wide = raw.astype(np.int64)
    if raw.ndim == 2:
        return wide << 16 | wide << 8 | wide
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def whole(values: np.ndarray, path: Path) -> np.ndarray:
    """A plane of whole numbers as int64."""
    if values.dtype.kind in "bui":
        return values.astype(np.int64)
    refuse_nan(values, path, "ids must be whole numbers; write 255 where there is no label")
    ids = values.astype(np.int64)
    if values.dtype.kind != "f" or (ids != values).any():
        raise DataError(f"{path}: holds {values.dtype} numbers that are not whole; save ids as whole numbers")
    return ids


def refuse_nan(values: np.ndarray, path: Path, remedy: str) -> None:
    """Raise DataError where some number is NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"{path}: {count} of {values.size} values are NaN or infinite; {remedy}")


def unpacked(raw: np.ndarray, weights: Sequence[float] | None, path: Path) -> np.ndarray:
    """(H, W, 3) → (H, W): the sum of the channels by their weights, whole (int64) where all of them are; else as is."""
    if weights is None:
        return raw
    if raw.ndim != 3 or raw.shape[-1] != 3:
        raise DataError(f"{path}: `packed` needs red, green and blue, found shape {raw.shape}; leave `packed` out")
    if raw.dtype.kind in "bui" and all(weight == int(weight) for weight in weights):
        return raw.astype(np.int64) @ np.array(weights, np.int64)
    numbers: np.ndarray = raw.astype(np.float64) @ np.array(weights)
    return numbers


def check_packed(weights: Sequence[float] | None) -> None:
    """Raise OptionError unless :func:`unpacked` can use them."""
    if weights is None:
        return
    if len(weights) != 3 or not any(weights) or not all(0 <= w < math.inf for w in weights):
        raise OptionError(
            "packed: expected the weights of red, green and blue such as [1, 256, 65536], finite and not all 0;"
            f" got {list(weights)}"
        )
