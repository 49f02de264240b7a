"""Pictures of any bands: TIFFs of every compression and layout, arrays, files a band; read whole and by windows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import tifffile

from garnish.pictures.band_files import BandFiles
from garnish.pictures.map_writer import MapWriter
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import Georeference, Raster, Window

from ..damage_files import another_kind, any_bytes, become, replaced
from ..specimens import picture
from ..surface import Damage, Surface
from ..verdicts import WrongReading

_NAMES = '<Item name="DESCRIPTION" sample="1" role="description">near infrared</Item>'
#: Name → (bands, dtype, options of tifffile).
_TIFFS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "strip": (3, "uint8", {}),
    "strips": (4, "uint16", {"rowsperstrip": 5, "photometric": "rgb"}),
    "big": (2, "float32", {"bigtiff": True, "tile": (16, 16), "compression": "zlib", "predictor": 3}),
    "motorola": (1, "int16", {"byteorder": ">", "compression": "zlib", "predictor": 2}),
    "lzw": (3, "uint8", {"compression": "lzw", "tile": (16, 32)}),
    "packbits": (1, "uint8", {"compression": "packbits"}),
    "zstd": (5, "uint16", {"compression": "zstd", "photometric": "minisblack"}),
    "jpeg": (3, "uint8", {"compression": "jpeg", "tile": (16, 16)}),
    "pages": (3, "float64", {"pages": True}),
    "turned": (3, "uint8", {"extratags": [(274, 3, 1, 6, True)]}),
    "named": (2, "uint8", {"extratags": [(42112, 2, None, _NAMES, True)], "photometric": "minisblack"}),
}


_HUGE = [2**7, 2**15, 2**16 - 1, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


class Rasters(Surface):
    """One file of each kind, and a picture of two files."""

    name: ClassVar[str] = "rasters"
    share: ClassVar[float] = 1.5

    def make(self, folder: Path) -> None:
        for name, (bands, dtype, options) in _TIFFS.items():
            (folder / name).mkdir()
            whole = _numbers(bands, dtype)
            more = dict(options)
            if more.pop("pages", False):
                tifffile.imwrite(folder / name / "a.tif", whole.transpose(2, 0, 1), photometric="minisblack")
            else:
                tifffile.imwrite(folder / name / "a.tif", whole[..., 0] if bands == 1 else whole, **more)
        (folder / "ours").mkdir()
        place = Georeference("EPSG:32632", (10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
        with MapWriter(folder / "ours" / "a.tif", (32, 48), 2, "int16", place, nodata=-1) as writer:
            writer.write(_numbers(2, "int16"))
        for name in ("npy", "npz", "bands", "several"):
            (folder / name).mkdir()
        whole = _numbers(4, "uint16")
        np.save(folder / "npy" / "a.npy", whole)
        np.savez_compressed(folder / "npz" / "a.npz", whole)
        np.savez(folder / "bands" / "a.npz", red=whole[..., 0], nir=whole[..., 1])
        np.save(folder / "several" / "a.npy", whole[..., 0])
        tifffile.imwrite(folder / "several" / "b.tif", whole[..., 1])

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(6.0, any_bytes(_files)), (0.4, another_kind(_files)), (4.0, _tag), (1.0, _array)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        files = _files(folder)
        first = files[0] if files else folder / "a.tif"
        with (
            BandFiles({"a": first, "b": files[1]})
            if len(files) > 1
            else open_raster(first, draw.choice([None, 4])) as raster
        ):
            _judge(raster, draw)


def _judge(raster: Raster, draw: Random) -> None:
    """A window is a part of the whole, and the header says what is read."""
    height, width = raster.facts.size
    part = Window(draw.randrange(height), draw.randrange(width), 1, 1)
    part = part._replace(
        height=draw.randint(1, min(height - part.top, 64)), width=draw.randint(1, min(width - part.left, 64))
    )
    seen = raster.read(part)
    if height * width * len(raster.facts.bands) > 2**24:  # half a gigabyte, whose reading others' work delays
        return
    whole = raster.read()
    if whole.shape != (height, width, len(raster.facts.bands)) or whole.dtype.name != raster.facts.dtype:
        raise WrongReading(f"{whole.shape} {whole.dtype}, but the header says {raster.facts}")
    same = whole[part.top : part.top + part.height, part.left : part.left + part.width]
    if seen.tobytes() != same.tobytes():
        raise WrongReading(f"{part} is not that part of the whole")


def _numbers(bands: int, dtype: str) -> np.ndarray:
    pixels = picture(2)
    return np.concatenate([pixels] * 2, axis=-1)[..., :bands].astype(dtype)


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("a.*"), *folder.glob("b.*")])


def _tag(draw: Random, folder: Path) -> str:
    """An entry of a TIFF's directory with another tag, type, count or value."""
    file = next((each for each in _files(folder) if each.suffix == ".tif"), None)
    if file is None:
        return _array(draw, folder)
    data = bytearray(file.read_bytes())
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    place = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    number = struct.unpack_from(order + ("Q" if big else "H"), data, place)[0]
    size, head = (20, 8) if big else (12, 2)
    at = place + head + size * draw.randrange(number)
    part, form = draw.choice([(0, "H"), (2, "H"), (4, "I"), (12 if big else 8, "I"), (12 if big else 8, "H")])
    small = [0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 32, 33, 64, 256, 257, 274, 284, 317, 322, 338, 339, 32773, 50000, 65535]
    value = draw.choice(small if draw.random() < 0.7 else _HUGE)
    value %= 2 ** (16 if form == "H" else 32)
    struct.pack_into(order + form, data, at + part, value)
    file.write_bytes(data)
    return f"{file.name}: entry at {at}, byte {part}: {value}"


def npy(shape: str, descr: str, data: bytes) -> bytes:
    """An ``.npy`` file of these words in its header."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


def _array(draw: Random, folder: Path) -> str:
    """An array of an odd shape and type."""
    for file in _files(folder):
        file.unlink()
    usual = ["(8, 8)", "(4, 8, 9)", "(8, 8, 4)", "(8,)", "()", "(0, 8)", "(-8, 8)", "(True, 8)", "(8, 8, 8, 1)"]
    shape = draw.choice([*usual, "(99999, 99999)", "(8, 8, 2**9)", f"(8, {'8' * 4000})"])
    descr = draw.choice(["'|u1'", "'<u2'", "'>f4'", "'<f2'", "'|O'", "'<c8'", "'<U9'", "'|b1'", "'<f16'", "'<M8[s]'"])
    (folder / "a.npy").write_bytes(npy(shape, descr, bytes(draw.choice([0, 64, 2048]))))
    return f"{shape[:40]} {descr}"


def tiff(width: int, height: int, after: bytes, *more: tuple[int, int, int, int]) -> bytes:
    """A TIFF of one directory with data at byte 400; entries are (tag, type, count, value)."""
    basic = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 400)]
    basic += [(277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(after))]
    entries = {entry[0]: entry for entry in (*basic, *more)}
    table = b"".join(struct.pack("<HHII", *entries[tag]) for tag in sorted(entries))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)).ljust(400, b"\0") + after


_BLANK = zlib.compress(bytes(8000 * 8000))
CRAFTED: dict[str, Damage] = {
    "wide": replaced(_files, "a.tif", tiff(2**20, 2**10, b"")),
    "largest blank": replaced(_files, "a.tif", tiff(8000, 8000, _BLANK, (259, 3, 1, 8))),
    "larger blank": replaced(_files, "a.tif", tiff(9000, 9000, _BLANK, (259, 3, 1, 8))),
    "many bands": replaced(_files, "a.tif", tiff(256, 256, b"", (277, 3, 1, 1024))),
    "left out": replaced(_files, "a.tif", tiff(8192, 8192, b"", (273, 4, 1, 0), (279, 4, 1, 0))),
    "left out of 64 bits": replaced(_files,
        "a.tif", tiff(8192, 8192, b"", (273, 4, 1, 0), (279, 4, 1, 0), (258, 3, 1, 64), (339, 3, 1, 3))
    ),
    "small tiles": replaced(
        _files, "a.tif", tiff(8192, 8192, b"", (322, 4, 1, 1), (323, 4, 1, 1), (324, 4, 2**26, 400))
    ),
    "all at one place": replaced(_files,
        "a.tif",
        tiff(4096, 4096, struct.pack("<I", 70_000) * 4096 + bytes(70_000), (273, 4, 4096, 400), (278, 4, 1, 1),
             (279, 4, 4096, 400)),
    ),
    "metadata": replaced(_files, "a.tif", tiff(16, 16, b"<Item " * 170_000, (42112, 2, 10**6, 400))),
    "circle": replaced(_files, "a.tif", b"II*\0\x08\0\0\0" + struct.pack("<HI", 0, 8)),
    "large array": replaced(_files, "a.npy", npy("(60000, 60000)", "'<f8'", bytes(64))),
    **{
        how: (lambda draw, folder, how=how: become(_files(folder)[0], how) or "")
        for how in ("pipe", "/dev/zero", "sparse", "folder", "loop")
    },
}  # fmt: skip
