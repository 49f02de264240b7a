"""Pictures in every format that is read: ``read_picture``, ``picture_size`` and ``garnish predict``'s way in."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageOps

from garnish.files.label_files import open_label, refuse_lossy
from garnish.files.pictures import is_transparent, open_picture, picture_size, read_picture

from ..damage_files import another_kind, any_bytes, become, replaced
from ..specimens import picture
from ..surface import Damage, Surface
from ..verdicts import WrongReading

#: Suffix → Pillow's options to save with.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("RGB", {}),
    "grey.png": ("L", {}),
    "rgba.png": ("RGBA", {}),
    "p.png": ("P", {}),
    "jpg": ("RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    "cmyk.jpg": ("CMYK", {}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "webp": ("RGB", {"lossless": True}),
    "lossy.webp": ("RGBA", {}),
    "bmp": ("RGB", {}),
    "tif": ("RGB", {}),
    "lzw.tif": ("RGB", {"compression": "tiff_lzw"}),
    "deflate.tif": ("L", {"compression": "tiff_adobe_deflate"}),
    "g4.tif": ("1", {"compression": "group4"}),
    "jpeg.tif": ("RGB", {"compression": "jpeg"}),
    "float.tif": ("F", {}),
    "gif": ("P", {}),
    "ppm": ("RGB", {}),
    "pgm": ("L", {}),
    "avif": ("RGB", {}),
    "jp2": ("RGB", {}),
}


class Pictures(Surface):
    """One picture of each format and mode."""

    name: ClassVar[str] = "pictures"
    share: ClassVar[float] = 1.5

    def make(self, folder: Path) -> None:
        pixels = Image.fromarray(picture(1))
        for name, (mode, options) in _FORMATS.items():
            place = folder / name.replace(".", "_")
            place.mkdir()
            made = pixels.convert("L").convert("F").point(lambda v: v / 255) if mode == "F" else pixels.convert(mode)
            try:
                made.save(place / f"a.{name.split('.')[-1]}", **options)
            except (OSError, KeyError):  # a Pillow without that format
                (place / "a.png").write_bytes(b"")
                place.joinpath("a.png").unlink()
                place.rmdir()
        deep = folder / "deep"
        deep.mkdir()
        (deep / "a.png").write_bytes(png(48, 32, 16, 2, np.arange(32 * 48 * 3, dtype=">u2").reshape(32, -1).tobytes()))

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(6.0, any_bytes(_files)), (0.4, another_kind(_files)), (1.5, _chunk)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        files = _files(folder) or [folder / "a.png"]
        file = files[0]
        if draw.random() < 0.3:  # as a label, whose numbers are read
            open_label(file, colours=draw.random() < 0.5)
            refuse_lossy(file)
            return
        pixels, facts = open_picture(file)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise WrongReading(f"{pixels.dtype} {pixels.shape}")
        if (size := picture_size(file)) != pixels.shape[:2]:
            raise WrongReading(f"the header says {size}, the pixels are {pixels.shape}")
        if not np.array_equal(read_picture(file), pixels):
            raise WrongReading("read twice, it is another")
        is_transparent(file, facts)
        with Image.open(file) as image:
            if image.mode in ("RGB", "L", "1") and facts.bits <= 8:
                theirs = np.array(ImageOps.exif_transpose(image).convert("RGB"))
                if not np.array_equal(theirs, pixels):
                    raise WrongReading("other pixels than Pillow reads")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("a.*"))


# ---- made by hand -----------------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, kind: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG whose rows are ``rows`` cut evenly, unfiltered; ``extra``: chunks before them."""
    stride = len(rows) // max(height, 1) if height < 10**6 else 0
    lines = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height)) if stride else rows
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def _chunk(draw: Random, folder: Path) -> str:
    """A PNG with a damaged field of its header or a strange chunk, and right checksums."""
    file = (_files(folder) or [folder / "a.png"])[0]
    width, height = (
        draw.choice([48, 48, 0, 1, 2**31 - 1, 178_000_000, 13_000]),
        draw.choice([32, 32, 0, 1, 2**31 - 1, 13_000]),
    )
    bits, kind = draw.choice([8, 8, 16, 1, 2, 4, 0, 3, 255]), draw.choice([0, 2, 3, 4, 6, 1, 7])
    extra = draw.choice(
        [
            *(
                b"",
                chunk(b"PLTE", bytes(range(9))),
                chunk(b"PLTE", bytes(4)),
                chunk(b"tRNS", bytes(300)),
                chunk(b"tRNS", b""),
            ),
            *(
                chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0"),
                chunk(b"eXIf", b"II"),
                chunk(b"gAMA", b""),
            ),
            *(chunk(b"acTL", struct.pack(">II", 2**31, 0)), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7)))),
            *(
                chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**7))),
                chunk(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(10**7))),
            ),
        ]
    )
    rows = bytes(draw.choice([0, 1, 48 * 32, 48 * 32 * 3, 48 * 32 * 8]))
    target = file.with_suffix(".png")
    file.unlink(missing_ok=True)
    target.write_bytes(png(width, height, bits, kind, rows, extra))
    return f"PNG {width}x{height}, {bits} bits, kind {kind}, {extra[4:8]!r}, {len(rows)} bytes"


def tiff(*entries: tuple[int, int, int, int], after: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; entries are (tag, type, count, value)."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4) + after


def _square(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    basic = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200)]
    return tiff(*basic, (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 64), *more, after=bytes(300))


CRAFTED: dict[str, Damage] = {
    "wide": replaced(_files, "a.png", png(178_000_000, 1, 8, 0, bytes(1000))),
    "tall": replaced(_files, "a.png", png(1, 178_000_000, 8, 0, bytes(1000))),
    "largest": replaced(_files, "a.png", png(13_377, 13_377, 8, 2, b"")),
    "largest of 16 bits": replaced(_files, "a.png", png(13_377, 13_377, 16, 6, b"")),
    "largest palette": replaced(_files, "a.png", png(13_377, 13_377, 8, 3, b"", chunk(b"PLTE", bytes(768)))),
    "largest whole": replaced(_files, "a.png", png(13_000, 13_000, 1, 0, bytes(13_000 * 1625))),
    "largest tiff": replaced(_files, "a.tif", _square(13_377, 13_377)),
    "largest bmp": replaced(
        _files,
        "a.bmp",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 13_377, 13_377, 1, 24, 0, 0, 0, 0, 0, 0),
    ),
    "run-length bmp": replaced(
        _files,
        "a.bmp",
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 13_377, 13_377, 1, 8, 1, 0, 0, 0, 256, 0)
        + bytes(1024)
        + b"\xff\0" * 50,
    ),
    "largest gif": replaced(
        _files,
        "a.gif",
        b"GIF89a"
        + struct.pack("<HHBBB", 13_000, 13_000, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, 13_000, 13_000, 0)
        + b"\x02\x02\x44\x01\0;",
    ),
    "largest ppm": replaced(_files, "a.ppm", b"P6\n13377 13377\n255\n"),
    "plain ppm": replaced(_files, "a.ppm", b"P3\n13377 13377\n255\n" + b"1 " * 1000),
    "ppm zeros": replaced(_files, "a.ppm", b"P6\n" + b"0" * 10**6 + b"48 32\n255\n"),
    "ppm comment": replaced(_files, "a.ppm", b"P6\n#" + b"x" * 10**7),
    "tiff loop": replaced(_files, "a.tif", b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8)),
    "tiff counts": replaced(_files, "a.tif", _square(48, 32, (700, 1, 2**32 - 1, 8))),
    "tiff strips": replaced(_files, "a.tif", _square(48, 32, (330, 4, 2**31, 8))),
    "tiff exif loop": replaced(_files, "a.tif", _square(48, 32, (34665, 4, 1, 8))),
    "text bomb": replaced(
        _files,
        "a.png",
        png(48, 32, 8, 0, bytes(48 * 32), *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))] * 200),
    ),
    "many chunks": replaced(_files, "a.png", png(48, 32, 8, 0, bytes(48 * 32), *[chunk(b"tEXt", b"a\0b")] * 100_000)),
    "jpeg markers": replaced(_files, "a.jpg", b"\xff\xd8" + b"\xff\xe1\x00\x02" * 10**6),
    "control name": replaced(_files, "a.\x1b[2J.png", b"\x89PNG"),
    **{
        how: (lambda draw, folder, how=how: become(_files(folder)[0], how) or "")
        for how in ("pipe", "/dev/zero", "sparse", "folder", "loop")
    },
}
