"""What one directory of a TIFF says of its picture, and what of that is read (TIFF 6.0; ``docs/pictures.md``).

Shape letters: H W pixels, S samples per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from garnish.pictures.reading import LONGEST_SIDE, MOST_READ
from garnish.pictures.tiff_directory import TiffDirectory

NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS, ZSTD = 1, 5, 7, 8, 32946, 32773, 50000
#: Ways to compress that are read → their names; others by name, for the message that refuses them.
COMPRESSIONS = {
    NONE: "none", LZW: "LZW", JPEG: "JPEG", DEFLATE: "deflate", OLD_DEFLATE: "deflate", PACKBITS: "PackBits",
    ZSTD: "ZSTD",
}  # fmt: skip
_OTHERS = {
    2: "CCITT RLE", 3: "CCITT fax 3", 4: "CCITT fax 4", 6: "old JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000",
    34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
GREY, RGB, PALETTE, CMYK, YCBCR = 1, 2, 3, 5, 6
PLAIN, DIFFERENCES, FLOAT_DIFFERENCES = 1, 2, 3
#: Most tiles or strips of a file.
_MOST_SEGMENTS = 2**24
#: Largest tile of a smaller picture, in pixels.
_LARGEST_TILE = 2**24
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_BY_COLOUR = {
    RGB: ("red", "green", "blue"),
    YCBCR: ("red", "green", "blue"),
    CMYK: ("cyan", "magenta", "yellow", "black"),
}
_TRANSPARENCY = (1, 2)


@final
@dataclass(frozen=True, kw_only=True)
class TiffPage:
    """The picture of one directory.

    Attributes:
        size: (H, W) as stored, not turned.
        dtype: of the numbers, with the file's byte order.
        samples: S, as stored (1 of a palette).
        colours: names of the bands, None for one of which nothing is said.
        planar: whether each sample lies in tiles of its own.
        compression: one of :data:`COMPRESSIONS`.
        predictor: :data:`PLAIN`, or how numbers were made from their neighbours.
        photometric: what the first samples mean.
        tile: (height, width) of a tile, or of a strip.
        tiled: whether the last ones are padded to the full size.
        offsets, counts: bytes of each tile, by planes, rows and columns.
        orientation: EXIF orientation.
        tables: what JPEG tiles share.
        palette: (256, 3) uint8, or None.
    """

    size: tuple[int, int]
    dtype: np.dtype
    samples: int
    colours: tuple[str | None, ...]
    planar: bool
    compression: int
    predictor: int
    photometric: int
    tile: tuple[int, int]
    tiled: bool
    offsets: np.ndarray
    counts: np.ndarray
    orientation: int
    tables: bytes
    palette: np.ndarray | None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])

    @property
    def depth(self) -> int:
        """Samples of a pixel in one tile."""
        return 1 if self.planar else self.samples


class Unread(Exception):
    """Why a sound TIFF is not read, and what to do; without the file."""


def tiff_page(tags: TiffDirectory) -> TiffPage:
    """The picture of a directory.

    Raises:
        ValueError: damaged, or numbers that contradict each other.
        Unread: a kind of TIFF that is not read.
    """
    size = tags.one(257), tags.one(256)
    samples = tags.one(277, 1)
    if not (min(size) >= 1 and max(size) <= LONGEST_SIDE and 1 <= samples <= 2**16):
        raise ValueError(f"a TIFF of {size[1]}x{size[0]} with {samples} bands")
    compression, photometric = tags.one(259, NONE), tags.one(262, GREY)
    if compression not in COMPRESSIONS:
        name = _OTHERS.get(compression, str(compression))
        raise Unread(f"is compressed by {name}, which is not read; save it with deflate, LZW or ZSTD")
    dtype = _dtype(tags, samples)
    if (refused := _refused(tags, compression, photometric, dtype, samples)) is not None:
        raise Unread(refused)
    planar = tags.one(284, 1) == 2 and samples > 1
    tile, tiled = _tile(tags, size)
    pixels = tile[0] * tile[1]
    if pixels > max(size[0] * size[1], _LARGEST_TILE):
        raise ValueError(f"tiles of {tile[1]}x{tile[0]} pixels")
    if pixels * samples * dtype.itemsize > MOST_READ and (tiled or compression != NONE):
        raise Unread(f"has tiles or strips of {tile[1]}x{tile[0]} pixels of {samples} bands; save it in smaller ones")
    down, across = -(-size[0] // tile[0]), -(-size[1] // tile[1])
    number = down * across * (samples if planar else 1)
    if number > _MOST_SEGMENTS:
        raise ValueError(f"{number:,} tiles or strips")
    offsets, counts = (_table(tags, tag, number) for tag in ((324, 325) if tiled else (273, 279)))
    orientation = tags.one(274, 1)
    return TiffPage(
        size=size,
        dtype=dtype,
        samples=samples,
        colours=_colours(tags, photometric, samples),
        planar=planar,
        compression=compression,
        predictor=tags.one(317, PLAIN),
        photometric=photometric,
        tile=tile,
        tiled=tiled,
        offsets=offsets,
        counts=counts,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        tables=tags.data(347, 2**16) if compression == JPEG else b"",
        palette=_palette(tags) if photometric == PALETTE else None,
    )


def _dtype(tags: TiffDirectory, samples: int) -> np.dtype:
    bits, kinds = (tags.numbers(tag, 2**16) for tag in (258, 339))
    if len(set(bits.tolist()) or {1}) > 1 or len(set(kinds.tolist()) or {1}) > 1:
        raise Unread("holds bands of several depths, which are not read; save them with one, or a file a band")
    depth, kind = int(bits[0]) if bits.size else 1, int(kinds[0]) if kinds.size else 1
    if kind not in _KINDS or depth not in ((16, 32, 64) if kind == 3 else (8, 16, 32)):
        named = {2: "signed whole", 3: "floating-point", 5: "complex", 6: "complex"}.get(kind, "whole")
        raise Unread(
            f"holds {named} numbers of {depth} bits, which are not read; save whole numbers of 8, 16 or 32 bits, or"
            " floats of 16, 32 or 64"
        )
    return np.dtype(f"{tags.order}{_KINDS[kind]}{depth // 8}")


def _refused(tags: TiffDirectory, compression: int, photometric: int, dtype: np.dtype, samples: int) -> str | None:
    predictor = tags.one(317, PLAIN)
    if photometric == 0:
        return "says that white is zero, which is not followed; save it with black as zero"
    if photometric not in (GREY, RGB, PALETTE, CMYK) and (photometric, compression) != (YCBCR, JPEG):
        return f"holds colours of kind {photometric} (PhotometricInterpretation), which are not read; save RGB"
    if photometric == YCBCR and (samples != 3 or tags.one(284, 1) != 1):
        return f"holds YCbCr colours in {samples} bands or in planes, which is not read; save RGB"
    if photometric == PALETTE and (samples != 1 or dtype.name != "uint8"):
        return "holds a palette of more than 8 bits or of several bands, which is not read; save its colours"
    if compression == JPEG and (dtype.name != "uint8" or samples not in (1, 3, 4)):
        return f"holds {samples} bands of {dtype.name} as JPEG, which are not read; save it with deflate, LZW or ZSTD"
    if predictor not in (PLAIN, DIFFERENCES, FLOAT_DIFFERENCES) or (predictor == FLOAT_DIFFERENCES) > (
        dtype.kind == "f"
    ):
        return f"has predictor {predictor} of {dtype.name}, which is not read; save it without"
    if predictor != PLAIN and compression in (NONE, PACKBITS, JPEG):
        return "has a predictor where readers differ on whether it is followed; save it with deflate, LZW or ZSTD"
    if tags.one(266, 1) != 1 or tags.one(32997, 1) != 1 or tags.one(284, 1) not in (1, 2):
        return "stores bits from the right, a volume, or planes of a kind that is not known; save it again"
    return None


def _tile(tags: TiffDirectory, size: tuple[int, int]) -> tuple[tuple[int, int], bool]:
    if 322 in tags or 323 in tags or 324 in tags:
        tile = tags.one(323), tags.one(322)
        if min(tile) < 1 or max(tile) > LONGEST_SIDE:
            raise ValueError(f"tiles of {tile[1]}x{tile[0]}")
        return tile, True
    rows = tags.one(278, size[0])
    if rows < 1:
        raise ValueError(f"strips of {rows} rows")
    return (min(rows, size[0]), size[1]), False


def _table(tags: TiffDirectory, tag: int, number: int) -> np.ndarray:
    if tags.count(tag) != number:
        raise ValueError(f"{tags.count(tag):,} tiles or strips in tag {tag}, where its size needs {number:,}")
    return tags.numbers(tag, number)


def _colours(tags: TiffDirectory, photometric: int, samples: int) -> tuple[str | None, ...]:
    if photometric == PALETTE:
        return _BY_COLOUR[RGB]
    first = _BY_COLOUR.get(photometric, (None,))
    if samples < len(first):
        raise ValueError(f"{samples} bands of colours that have {len(first)}")
    extra = tags.numbers(338, 2**16).tolist()
    names: list[str | None] = [*first, *[None] * (samples - len(first))]
    seen = False
    for place in range(len(first), samples):
        meaning = extra[place - len(first)] if place - len(first) < len(extra) else 0
        if meaning in _TRANSPARENCY and not seen:
            names[place], seen = "alpha", True
    return tuple(names)


def _palette(tags: TiffDirectory) -> np.ndarray:
    table = tags.numbers(320, 768)
    if table.size != 768:
        raise ValueError(f"a palette of {table.size} numbers, where 768 are needed")
    return (table.reshape(3, 256).T >> 8).astype(np.uint8)
