"""From the numbers of a label file to a target: one function per kind of label.

Targets (H W pixels): ids (H, W) int64 with 255 = ignore; binary (1, H, W) float32 in {0, 1, 255 = ignore}; depth
(1, H, W) float32 metres, 0 = no label; normals (3, H, W) float32 unit vectors, x right, y down, z forward,
zero = no label.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from garnish.data.labels.label_options import LabelOptions
from garnish.errors import DataError
from garnish.files.label_files import refuse_lossy
from garnish.tasks.task import IGNORE

#: Vectors shorter than this are no normals but a background colour such as mid-grey.
_SHORTEST_NORMAL = 0.1
_COLOURS_OR_PACKED = (
    "write `colours: {class name: [r, g, b]}`, or `packed: [1, 256, 65536]` where red, green and blue make up one id"
)


def decode(raw: np.ndarray, options: LabelOptions, path: Path) -> np.ndarray:
    """The target that a label file's numbers stand for.

    Args:
        raw: (H, W) or (H, W, C), as :func:`garnish.files.label_files.read_array` gives it.
        options: how to read it.
        path: named in messages.

    Returns:
        One of the module's target formats, writeable.

    Raises:
        DataError: numbers that the options do not explain; the message says which option would.
    """
    if raw.size == 0:
        raise DataError(f"{path}: holds no pixels; write the label again")
    if options.exact:
        refuse_lossy(path)
    if options.packed is not None:
        raw = _unpacked(raw, options.packed, path)
    return _DECODERS[options.kind](raw, options, path)


def decode_ids(raw: np.ndarray, options: LabelOptions, path: Path) -> np.ndarray:
    """An id map (grey, palette, 16-bit or ``.npy``) → (H, W) int64; ids are not checked against a class count."""
    ids = _remap(_whole(_plane(raw, path, _COLOURS_OR_PACKED), path), options, path)
    if (ids < 0).any():
        value = int(ids.min())
        raise DataError(
            f"{path}: holds id {value}; write `ignore: {value}` or list it under `map` in the data description"
        )
    return ids


def decode_colours(raw: np.ndarray, options: LabelOptions, path: Path) -> np.ndarray:
    """RGB colours → (H, W) int64 by the table ``colours``."""
    if options.colours is None:
        raise DataError(
            f"{path}: colours need a table; give `colours: {{class name: [r, g, b]}}` in the data description"
        )
    codes = _colour_codes(raw, path)
    values, places = np.unique(codes, return_inverse=True)
    table = {r << 16 | g << 8 | b: new for (r, g, b), new in options.colours.items()}
    if options.others is None:
        unknown = [int(v) for v in values if int(v) not in table]
        if unknown:
            rgb = [unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255]
            count = int((codes == unknown[0]).sum())
            raise DataError(
                f"{path}: {count} pixels have the colour {rgb}, which `colours` does not list "
                f"({len(unknown)} such colours); "
                "list it, or write `others: 255` to ignore what is not listed"
            )
    other = options.others if isinstance(options.others, int) else IGNORE
    ids = np.array([table.get(int(v), other) for v in values], dtype=np.int64)[places.reshape(codes.shape)]
    return ids


def decode_binary(raw: np.ndarray, options: LabelOptions, path: Path) -> np.ndarray:
    """A foreground map → (1, H, W) float32: 0/1 or 0/255 as it stands, grey by ``threshold``, ids by ``positive``."""
    plane = _plane(raw, path, "save one number a pixel")
    _refuse_nan(plane, path, "`threshold` cannot place it; write 0 or 255 there")
    ignored = np.isin(plane, options.ignore) if options.ignore else np.zeros(plane.shape, bool)
    if options.positive is not None:
        front = np.isin(plane, options.positive)
        if IGNORE not in options.positive:
            ignored |= plane == IGNORE
    elif options.threshold is not None:
        # one bit is black or white, which as a grey level is 0 or 255
        front = (plane.astype(np.uint8) * 255 if plane.dtype == bool else plane) > options.threshold
    else:
        front = _foreground_as_stored(plane, ignored, path)
    target = front.astype(np.float32)
    target[ignored] = IGNORE
    return target[None]


def decode_boundaries(raw: np.ndarray, options: LabelOptions, path: Path) -> np.ndarray:
    """Changes of an id map (or of a colour map) → (1, H, W) float32 edges, two pixels wide.

    A pixel is an edge where a neighbour to the left, right, above or below has another id. Ignored pixels and those
    that only touch an ignored one are 255: what the change is there is not known.
    """
    ids = _colour_codes(raw, path) if _is_coloured(raw) else _whole(_plane(raw, path, _COLOURS_OR_PACKED), path)
    unused = IGNORE if not _is_coloured(raw) else -1
    if options.map is not None or options.offset:
        ids = _remap(ids, options, path)
        ignored = ids == IGNORE
    else:
        ignored = np.isin(ids, (*options.ignore, unused))
    edge, unknown = np.zeros(ids.shape, bool), ignored.copy()
    for one, other in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:, :], np.s_[:-1, :]),
    ):
        known = ~(ignored[one] | ignored[other])
        change = (ids[one] != ids[other]) & known
        edge[one] |= change
        edge[other] |= change
        unknown[one] |= ignored[other]
        unknown[other] |= ignored[one]
    target = edge.astype(np.float32)
    target[unknown & ~edge] = IGNORE
    return target[None]


def decode_depth(raw: np.ndarray, options: LabelOptions, path: Path) -> np.ndarray:
    """Depth in steps of ``scale`` metres → (1, H, W) float32 metres; 0, negative and ``invalid`` values become 0."""
    plane = _plane(raw, path, "write `packed: [1, 256, 65536]`, the weights of red, green and blue in one number")
    if options.scale is None and plane.dtype.kind != "f":
        raise DataError(
            f"{path}: depth in whole numbers has no unit; write `unit: mm` (or m, cm, or `scale: metres per step`)"
        )
    metres = plane.astype(np.float32)
    missing = _equals_any(metres, options.invalid)
    metres[missing] = 0.0
    for name, bad in (("nan", np.isnan(metres)), ("inf", metres == np.inf), ("-inf", metres == -np.inf)):
        if bad.any():
            raise DataError(
                f"{path}: {int(bad.sum())} of {bad.size} depths are {name.upper()}; "
                f"write `invalid: {name}` in the data description if that means 'no depth', or repair the file"
            )
    if options.scale is not None:
        # In float64, then rounded once: 2600 mm must not become more than 2.6 m.
        metres = (metres.astype(np.float64) * options.scale).astype(np.float32)
    return np.maximum(metres, 0.0)[None]


def decode_normals(raw: np.ndarray, options: LabelOptions, path: Path) -> np.ndarray:
    """Normals as RGB (8 bits: n = 2v/255 − 1, black = none; 16 alike) or floats in [−1, 1] → (3, H, W) unit vectors."""
    if raw.ndim == 3 and raw.shape[-1] != 3 and raw.shape[0] == 3:
        raw = np.moveaxis(raw, 0, -1)
    if raw.ndim != 3 or raw.shape[-1] != 3:
        raise DataError(f"{path}: normals need three channels, found shape {raw.shape}; save x, y, z as RGB or as .npy")
    none = (raw == 0).all(-1)
    for value in options.invalid:
        none |= (np.isnan(raw) if np.isnan(value) else raw == value).all(-1)
    vectors = raw.astype(np.float32)
    if raw.dtype in (np.uint8, np.uint16):
        vectors = vectors * np.float32(2 / np.iinfo(raw.dtype).max) - 1
    elif raw.dtype.kind != "f":
        raise DataError(f"{path}: normals stored as {raw.dtype}; save them as 8-bit RGB or as floats in [-1, 1]")
    vectors[none] = 0.0
    meant = (np.isnan(vectors).all(-1) | np.isfinite(vectors).all(-1)).all()
    remedy = "write `invalid: nan` in the data description if that means 'no normal'" if meant else "repair the file"
    _refuse_nan(vectors, path, remedy)
    largest = float(np.abs(vectors).max())
    if largest > 1.01:
        raise DataError(f"{path}: a normal has the component {largest:g}; scale floats to [-1, 1], or save 8-bit RGB")
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors = np.where(length < _SHORTEST_NORMAL, 0.0, vectors / np.maximum(length, _SHORTEST_NORMAL))
    for axis in options.flip:
        vectors[..., "xyz".index(axis)] *= -1.0
    return np.ascontiguousarray(np.moveaxis(vectors, -1, 0).astype(np.float32)) + np.float32(0.0)  # no negative zeros


_DECODERS: dict[str, Callable[[np.ndarray, LabelOptions, Path], np.ndarray]] = {
    "ids": decode_ids,
    "colours": decode_colours,
    "binary": decode_binary,
    "boundaries": decode_boundaries,
    "depth": decode_depth,
    "normals": decode_normals,
}


def _unpacked(raw: np.ndarray, weights: tuple[float, float, float], path: Path) -> np.ndarray:
    """(H, W, 3) → (H, W): the sum of the channels by their weights, whole (int64) where all of them are."""
    if raw.ndim != 3 or raw.shape[-1] != 3:
        raise DataError(f"{path}: `packed` needs red, green and blue, found shape {raw.shape}; leave `packed` out")
    if raw.dtype.kind in "bui" and all(weight == int(weight) for weight in weights):
        return raw.astype(np.int64) @ np.array(weights, np.int64)
    numbers: np.ndarray = raw.astype(np.float64) @ np.array(weights)
    return numbers


def _plane(raw: np.ndarray, path: Path, remedy: str) -> np.ndarray:
    """The one channel of a map; three equal channels are one; of colours ``remedy`` is what to do."""
    if raw.ndim == 3 and raw.shape[-1] == 1:
        raw = raw[..., 0]
    elif raw.ndim == 3 and raw.shape[0] == 1 and raw.shape[-1] != 3:
        raw = raw[0]
    if raw.ndim == 2:
        return raw
    if _is_coloured(raw):
        raise DataError(f"{path}: holds colours where one number a pixel is expected; {remedy}")
    if raw.ndim == 3 and raw.shape[-1] == 3:
        return raw[..., 0]
    raise DataError(f"{path}: expected one number a pixel, found an array of shape {raw.shape}; save (height, width)")


def _is_coloured(raw: np.ndarray) -> bool:
    if raw.ndim != 3 or raw.shape[-1] != 3:
        return False
    return bool((raw[..., 0] != raw[..., 1]).any() or (raw[..., 0] != raw[..., 2]).any())


def _colour_codes(raw: np.ndarray, path: Path) -> np.ndarray:
    """(H, W, 3) uint8 → (H, W) int64, one number a colour; a grey map is R = G = B."""
    if raw.dtype == bool:
        raw = raw.astype(np.uint8) * np.uint8(255)
    if raw.dtype != np.uint8 or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[-1] != 3):
        raise DataError(f"{path}: expected 8-bit RGB colours, found {raw.dtype} of shape {raw.shape}; save such a PNG")
    wide = raw.astype(np.int64)
    if raw.ndim == 2:
        return wide << 16 | wide << 8 | wide
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _whole(plane: np.ndarray, path: Path) -> np.ndarray:
    """A plane of whole numbers as int64."""
    if plane.dtype.kind in "bui":
        return plane.astype(np.int64)
    _refuse_nan(plane, path, "ids must be whole numbers; write 255 where there is no label")
    ids = plane.astype(np.int64)
    if plane.dtype.kind != "f" or (ids != plane).any():
        raise DataError(f"{path}: holds {plane.dtype} numbers that are not whole; save ids as whole numbers")
    return ids


def _remap(ids: np.ndarray, options: LabelOptions, path: Path) -> np.ndarray:
    """Raw ids → ids by ``ignore``, ``map``, ``others`` and ``offset``, in this order."""
    listed = options.map or {}
    ignore = {*options.ignore, *({IGNORE} - set(listed))}
    if not listed and not options.offset:
        for value in ignore - {IGNORE}:
            ids[ids == value] = IGNORE
        return ids
    values, places = _distinct(ids)
    new: list[int] = []
    for value in map(int, values):
        if value in ignore:
            new.append(IGNORE)
            continue
        if listed and value not in listed and options.others is None:
            count = int((ids == value).sum())
            raise DataError(
                f"{path}: {count} pixels have id {value}, which `map` does not list; list it, add it to `ignore`, "
                "or write `others: 255` (`others: same` keeps such ids)"
            )
        if value in listed:
            value = listed[value]
        elif listed and isinstance(options.others, int):
            value = options.others
        if value != IGNORE:
            value += options.offset
            if value < 0 and options.offset < 0:
                value = IGNORE
        new.append(value)
    remapped: np.ndarray = np.array(new, dtype=np.int64)[places]
    return remapped


def _distinct(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a whole-number map, ascending, and the place of each pixel's value among them."""
    largest = int(ids.max())
    if ids.min() < 0 or largest > 0xFFFF:
        values, places = np.unique(ids, return_inverse=True)
        return values, places.reshape(ids.shape)
    values = np.flatnonzero(np.bincount(ids.ravel()))  # many times faster than sorting all pixels
    rank = np.zeros(largest + 1, np.int64)
    rank[values] = np.arange(len(values))
    return values, rank[ids]


def _foreground_as_stored(plane: np.ndarray, ignored: np.ndarray, path: Path) -> np.ndarray:
    if plane.dtype == bool:
        return plane
    kept = plane[~ignored]
    found = np.flatnonzero(np.bincount(kept)) if kept.dtype.kind == "u" and kept.itemsize < 4 else np.unique(kept)
    values = {float(v) for v in found}
    front: np.ndarray = plane == 1
    if values <= {0.0, 1.0}:
        return front
    if values <= {0.0, 255.0}:
        front = plane == IGNORE
        return front
    if values <= {0.0, 1.0, 255.0}:
        raise DataError(f"{path}: holds 0, 1 and 255; write `ignore: 255` if 255 means 'no label', else `threshold: 0`")
    low, high = min(values - {0.0}), max(values)
    raise DataError(
        f"{path}: expected 0/1 or 0/255, found {len(values)} values up to {high:g} (the first above 0 is {low:g}); "
        f"write `threshold: {middle_level(high):g}` for grey levels or `positive: [ids]` for an id map"
    )


def middle_level(largest: float) -> float:
    """Half of the full range that grey levels up to ``largest`` have: 0 to 1, to 255 or to 65535."""
    return 0.5 if largest <= 1 else 127 if largest <= IGNORE else 32767


def _refuse_nan(values: np.ndarray, path: Path, remedy: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"{path}: {count} of {values.size} values are NaN or infinite; {remedy}")


def _equals_any(values: np.ndarray, wanted: tuple[float, ...]) -> np.ndarray:
    found = np.zeros(values.shape, bool)
    for value in wanted:
        found |= np.isnan(values) if np.isnan(value) else values == np.float32(value)
    return found
