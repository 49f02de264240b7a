"""Helpers of label readers: reduce the array of a label file to one channel (H, W) and check its values.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from garnish.errors import DataError, OptionError, shown

#: The largest number of 64 bits with a sign.
_MOST = 2**63 - 1


def plane(raw: np.ndarray, path: Path, remedy: str) -> np.ndarray:
    """The single channel (H, W) of a map; three equal channels count as one. Colours raise, with ``remedy``."""
    if raw.ndim == 3 and raw.shape[-1] == 1:
        raw = raw[..., 0]
    elif raw.ndim == 3 and raw.shape[0] == 1 and raw.shape[-1] != 3:
        raw = raw[0]
    if raw.ndim == 2:
        return raw
    if is_coloured(raw):
        raise DataError(f"{path}: holds colours where one number per pixel is expected; {remedy}")
    if raw.ndim == 3 and raw.shape[-1] == 3:
        return raw[..., 0]
    raise DataError(f"{path}: expected one number per pixel, found shape {raw.shape}; save (height, width)")


def is_coloured(raw: np.ndarray) -> bool:
    """Whether an array has three channels that are not all equal."""
    if raw.ndim != 3 or raw.shape[-1] != 3:
        return False
    return bool((raw[..., 0] != raw[..., 1]).any() or (raw[..., 0] != raw[..., 2]).any())


def colour_codes(raw: np.ndarray, path: Path) -> np.ndarray:
    """(H, W, 3) uint8 → (H, W) int64, 65536 R + 256 G + B; in a grey map (H, W), R = G = B."""
    if raw.dtype == bool:
        raw = raw.astype(np.uint8) * np.uint8(255)
    if raw.dtype != np.uint8 or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[-1] != 3):
        raise DataError(f"{path}: expected 8-bit RGB colours, found {raw.dtype} of shape {raw.shape}; save an RGB PNG")
    wide = raw.astype(np.int64)
    if raw.ndim == 2:
        return wide << 16 | wide << 8 | wide
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def whole(values: np.ndarray, path: Path) -> np.ndarray:
    """A plane as int64; raises DataError for values that are not whole numbers."""
    if values.dtype.kind in "bui":
        if values.dtype.itemsize == 8 and values.dtype.kind == "u" and int(values.max()) > _MOST:
            raise DataError(f"{path}: holds id {int(values.max())}, more than 63 bits; save smaller ids")
        return values.astype(np.int64)
    refuse_nan(values, path, "ids must be whole numbers; write 255 where there is no label")
    if (largest := float(np.abs(values).max())) >= 2**63:
        raise DataError(f"{path}: holds numbers up to {largest:g}, which are no ids; save smaller ids")
    ids = values.astype(np.int64)
    if values.dtype.kind != "f" or (ids != values).any():
        raise DataError(f"{path}: holds {values.dtype} numbers that are not whole; save ids as whole numbers")
    return ids


def refuse_nan(values: np.ndarray, path: Path, remedy: str) -> None:
    """Raise DataError if any value is NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"{path}: {count} of {values.size} values are NaN or infinite; {remedy}")


def unpacked(raw: np.ndarray, weights: Sequence[float] | None, path: Path) -> np.ndarray:
    """(H, W, 3) → (H, W) weighted sum of the channels, int64 if all are integers; unchanged without weights."""
    if weights is None:
        return raw
    if raw.ndim != 3 or raw.shape[-1] != 3:
        raise DataError(f"{path}: `packed` needs red, green and blue, found shape {raw.shape}; leave `packed` out")
    if raw.dtype.kind in "bui" and all(weight == int(weight) for weight in weights):
        if max(abs(int(raw.min())), int(raw.max())) * sum(map(int, weights)) > _MOST:
            raise DataError(f"{path}: `packed` makes numbers of more than 63 bits of it; correct weights or file")
        return raw.astype(np.int64) @ np.array(weights, np.int64)
    numbers: np.ndarray = raw.astype(np.float64) @ np.array(weights)
    return numbers


def check_packed(weights: Sequence[float] | None) -> None:
    """Raise OptionError unless the weights are valid for :func:`unpacked`."""
    if weights is None:
        return
    if len(weights) != 3 or not any(weights):
        raise OptionError(
            "packed: expected the weights of red, green and blue such as [1, 256, 65536], not all 0;"
            f" got {shown(list(weights))}"
        )
