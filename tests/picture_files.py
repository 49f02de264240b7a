"""Picture files written byte by byte, so that what they hold is known without a reader: PNG, TIFF, PGM."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from garnish.files import pictures


def read_picture(path: Path) -> torch.Tensor:
    """(3, H, W) uint8, as tensors have it: what the package reads."""
    return torch.from_numpy(pictures.read_picture(path)).permute(2, 0, 1)


#: bands → colour type of PNG
PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def write_png(
    path: Path,
    pixels: np.ndarray,
    bits: int = 16,
    *,
    palette: bool = False,
    frames: int = 1,
    orientation: int | None = None,
) -> Path:
    """(H, W, C) whole numbers as PNG without filters; a palette's colours are (3k, 2k, k)."""
    height, width, bands = pixels.shape

    def row(values: np.ndarray) -> bytes:
        if bits == 16:
            return values.astype(">u2").tobytes()
        if bits == 8:
            return values.astype(np.uint8).tobytes()
        digits = np.unpackbits(values.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - bits :]
        return np.packbits(digits.ravel()).tobytes()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    kind = 3 if palette else PNG_COLOURS[bands]
    data = zlib.compress(b"".join(b"\0" + row(r) for r in pixels))
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))]
    if frames > 1:
        parts.append(chunk(b"acTL", struct.pack(">II", frames, 0)))
        frame = struct.pack(">IIIIHHBB", width, height, 0, 0, 1, 10, 0, 0)
        parts.append(chunk(b"fcTL", struct.pack(">I", 0) + frame))
    if orientation:
        tags = struct.pack("<HHHII", 1, 274, 3, 1, orientation) + bytes(4)
        parts.append(chunk(b"eXIf", b"II*\0" + struct.pack("<I", 8) + tags))
    if palette:
        parts.append(chunk(b"PLTE", bytes(v for k in range(2**bits) for v in (3 * k % 256, 2 * k % 256, k))))
    parts.append(chunk(b"IDAT", data))
    for number in range(1, frames):
        parts.append(chunk(b"fcTL", struct.pack(">I", 2 * number - 1) + frame))
        parts.append(chunk(b"fdAT", struct.pack(">I", 2 * number) + data))
    path.write_bytes(b"".join([*parts, chunk(b"IEND", b"")]))
    return path


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    *,
    photometric: int | None = None,
    extra: tuple[int, ...] = (),
    planar: bool = False,
    orientation: int | None = None,
    pages: tuple[int, ...] = (0,),
) -> Path:
    """(H, W, C) numbers as little-endian TIFF without compression; ``pages``: NewSubfileType of each equal page."""
    height, width, bands = pixels.shape
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    photometric = (2 if bands >= 3 else 1) if photometric is None else photometric
    planes = np.moveaxis(pixels, -1, 0) if planar else pixels
    data = planes.astype(pixels.dtype.newbyteorder("<")).tobytes()
    strips = bands if planar else 1
    out = bytearray(b"II*\0" + struct.pack("<I", 8 + len(data)) + data)
    for number, page in enumerate(pages):
        entries = [
            (254, 4, [page]),
            (256, 4, [width]),
            (257, 4, [height]),
            (258, 3, [pixels.dtype.itemsize * 8] * bands),
            (259, 3, [1]),
            (262, 3, [photometric]),
            (273, 4, [8 + k * len(data) // strips for k in range(strips)]),
            *([(274, 3, [orientation])] if orientation else []),
            (277, 3, [bands]),
            (278, 4, [height]),
            (279, 4, [len(data) // strips] * strips),
            (284, 3, [2 if planar else 1]),
            *([(338, 3, list(extra))] if extra else []),
            (339, 3, [form] * bands),
        ]
        after = len(out) + 2 + 12 * len(entries) + 4
        table, values = b"", b""
        for tag, kind, numbers in entries:
            packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
            if len(packed) > 4:
                place = struct.pack("<I", after + len(values))
                values += packed
                packed = place
            table += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
        following = after + len(values) if number + 1 < len(pages) else 0
        out += struct.pack("<H", len(entries)) + table + struct.pack("<I", following) + values
    path.write_bytes(bytes(out))
    return path


def write_pgm(path: Path, pixels: np.ndarray, largest: int) -> Path:
    """(H, W) whole numbers as binary PGM with a stated largest level."""
    kind = np.uint8 if largest < 256 else ">u2"
    head = f"P5\n{pixels.shape[1]} {pixels.shape[0]}\n{largest}\n"
    path.write_bytes(head.encode() + pixels.astype(kind).tobytes())
    return path
