"""TIFFs and arrays of strangers: damaged and lying ones end in one line, without much time or memory."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from garnish.errors import DataError
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import Window


def read(path: Path, bands: int | None = None) -> np.ndarray:
    with open_raster(path, bands) as raster:
        found = raster.read()
        assert found.shape == (*raster.facts.size, len(raster.facts.bands)) and found.dtype == raster.facts.dtype
        return found


def refused(path: Path, why: str = "") -> None:
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(DataError) as error:
        read(path)
    assert time.process_time() - started < 2
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert "\n" not in str(error.value) and str(path) in str(error.value) and why in str(error.value), error.value


def tiff(entries: dict[int, tuple[int, int, int]], after: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory, by tag: (type, count, value); data begin at byte 400."""
    table = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + struct.pack("<I", following)
    return head.ljust(400, b"\0") + after


def square(width: int, height: int, **more: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    basic = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    strip = {273: (4, 1, 400), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, width * height % 2**32)}
    return basic | strip | {int(tag[1:]): entry for tag, entry in more.items()}


SIXTEEN = square(16, 16)


def test_the_tiff_that_others_damage_is_sound(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(SIXTEEN, bytes(range(256))))
    np.testing.assert_array_equal(read(tmp_path / "a.tif").ravel(), np.arange(256))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tiff(square(2**31, 1)), "with 1 bands"),
        (tiff(square(0, 16)), "of 0x16"),
        (tiff(square(60_000, 60_000)), "not trusted beyond 67"),
        (tiff(square(60_000, 60_000, t259=(3, 1, 8))), "strips of 60000x60000 pixels of 1 bands; save it in smaller"),
        (tiff(square(100, 100, t277=(3, 1, 60_000))), "more than 1024"),
        (tiff(square(16, 16, t277=(3, 1, 0))), "with 0 bands"),
        (tiff(SIXTEEN, bytes(200)), "of which the file holds"),
        (tiff(square(16, 16, t279=(4, 1, 100)), bytes(256)), "a strip of 100 bytes, where 256 are needed"),
        (tiff(square(16, 16, t273=(4, 2, 400)), bytes(256)), "2 tiles or strips in tag 273, where its size needs 1"),
        (tiff(square(16, 16, t273=(4, 2**31, 400)), bytes(256)), "tiles or strips in tag 273"),
        (tiff(square(16, 16, t278=(4, 1, 0)), bytes(256)), "strips of 0 rows"),
        (tiff(square(16, 16, t322=(4, 1, 0), t323=(4, 1, 16))), "tiles of 0x16"),
        (tiff(square(2**16, 2**16, t322=(4, 1, 1), t323=(4, 1, 1))), "4,294,967,296 tiles or strips"),
        (tiff(square(16, 16, t322=(4, 1, 2**17), t323=(4, 1, 2**17))), "tiles of 131072x131072"),
        (tiff(square(16, 16, t259=(3, 1, 8)), bytes(256)), "error Error -3"),
        (tiff(square(16, 16, t259=(3, 1, 99))), "compressed by 99"),
        (tiff(square(16, 16, t258=(3, 2**30, 400))), "tag 258 has 1,073,741,824 values"),
        (tiff(square(16, 16, t258=(5, 1, 400))), "tag 258 has 1 values of type 5"),
        (tiff(SIXTEEN, bytes(256), following=8), "in a circle"),
        (tiff(SIXTEEN, bytes(256), following=10**6), "cut off"),
        (tiff(square(16, 16, t254=(4, 1, 1))), "without a picture"),
        (tiff({}), "of 0x0"),
        (b"II*\0\0\0\0\0", "without a picture"),
        (b"II*\0", "cut off"),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(99), "65,535 tags"),
        (b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60), "tags"),
        (b"II+\0\x04\0\0\0" + bytes(8), "offsets have not 8 bytes"),
        (tiff(square(16, 16, t317=(3, 1, 2)), bytes(256)), "has a predictor where readers differ"),
        (tiff(square(16, 16, t259=(3, 1, 8), t317=(3, 1, 3)), bytes(256)), "predictor 3 of uint8"),
        (tiff(square(16, 16, t262=(3, 1, 3)), bytes(256)), "a palette of 0 numbers"),
        (tiff(square(16, 16, t262=(3, 1, 2)), bytes(256)), "1 bands of colours that have 3"),
        (tiff(square(16, 16, t266=(3, 1, 2)), bytes(256)), "bits from the right"),
        (tiff(square(16, 16, t284=(3, 1, 7)), bytes(256)), "planes of a kind"),
    ],
)
def test_lying_headers_end_in_one_line(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    refused(tmp_path / "a.tif", why)


def test_little_that_becomes_much_is_cut_off(tmp_path: Path) -> None:
    """A strip of 256 numbers whose bytes would become 10 MB."""
    bomb = zlib.compress(bytes(10**7))
    (tmp_path / "a.tif").write_bytes(tiff(square(16, 16, t259=(3, 1, 8), t279=(4, 1, len(bomb))), bomb))
    tracemalloc.start()
    assert not read(tmp_path / "a.tif").any()
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()
    blank = zlib.compress(bytes(8000 * 8000))  # 62 kB that are 64 MB, which is what any file may have
    assert len(blank) < 70_000
    (tmp_path / "a.tif").write_bytes(tiff(square(8000, 8000, t259=(3, 1, 8), t279=(4, 1, len(blank))), blank))
    assert read(tmp_path / "a.tif").shape == (8000, 8000, 1)
    (tmp_path / "a.tif").write_bytes(tiff(square(9000, 9000, t259=(3, 1, 8), t279=(4, 1, len(blank))), blank))
    refused(tmp_path / "a.tif", "which is not trusted")


def test_many_directories_take_time_by_their_number(tmp_path: Path) -> None:
    entries = {254: (4, 1, 1)}
    size = 2 + 12 + 4
    (tag, entry), *_ = entries.items()
    out = [struct.pack("<HHHIII", 1, tag, *entry, 8 + size * (number + 1)) for number in range(9000)]
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0" + b"".join(out) + bytes(20))
    refused(tmp_path / "a.tif", "more than 8192")


def npz(**arrays: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in arrays.items():
                archive.writestr(f"{name}.npy", data)

    return write


def npy(shape: str, descr: str = "'|u1'", data: bytes = b"", order: str = "False") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (npy("(4, 4)", data=bytes(15)), "15 bytes, where (4, 4) needs 16"),
        (npy("(4, 4)", "'|O'", bytes(128)), "no plain numbers"),
        (npy("(4, 4)", "'<c8'", bytes(128)), "no plain numbers"),
        (npy("(4, 4)", "'<f16'", bytes(256)), "no plain numbers"),
        (npy("(4, 4)", "'<U3'", bytes(999)), "no plain numbers"),
        (npy("(4, 4)", "[('a', '<i4')]", bytes(128)), "no plain numbers"),
        (npy("(0, 4)"), "no pixels"),
        (npy("(4, 4, 0)"), "no pixels"),
        (npy("(-4, -4)", data=bytes(16)), "a shape of"),
        (npy("(20000, 20000)", data=bytes(16)), "16 bytes, where"),
        (npy("(2, 4, 4)", data=bytes(32)), "(C, H, W)"),
        (npy("(4, 4)", data=bytes(16), order="True"), "by columns"),
        (npy("(2000000, 1)", data=bytes(2000000)), "a side of more than"),
        (npy("(2000, 1, 2000)", data=bytes(4000000)), "more than 1024"),
        (npy("(2, (3"), "damaged"),
    ],
)
def test_lying_arrays_end_in_one_line(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    refused(tmp_path / "a.npy", why)
    if "columns" not in why:
        npz(a=data)(tmp_path / "a.npz")
        refused(tmp_path / "a.npz", why if "bytes, where" not in why or "20000" not in data.decode("latin1") else "")


def test_lying_zips_end_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    good = npy("(4, 4)", data=bytes(16))
    for write, why in (
        (npz(a=good, b=npy("(4, 5)", data=bytes(20))), "bands of shapes"),
        (npz(a=good, b=npy("(4, 4)", "'<u2'", bytes(32))), "bands of uint16, uint8"),
        (npz(a=good, b=npy("(4, 4, 1)", data=bytes(16))), "b.npy of several arrays has shape"),
        (npz(), "holds 0 arrays"),
        (npz(**{f"b{n}": good for n in range(1025)}), "holds 1025 arrays"),
        (npz(**{f"{'b' * 250}{n}": good for n in range(4000)}), "longer than that of any picture"),
        (npz(a=npy("(9000, 9000)", data=bytes(9000 * 9000))), "which is not trusted"),
        (npz(a=b"not an array"), "damaged"),
    ):
        write(file)
        refused(file, why)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("a.npy", good)
        refused(file, "compressed in another way")
    npz(a=good)(file)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"PK\1\2", b"PK\1\3"))
    refused(file, "damaged")
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        refused(file)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", good)
        archive.writestr("a.npy", good)
    refused(file, "two of one name")


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.npz"])
def test_only_regular_files_are_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name, "no regular file")
    (tmp_path / name).unlink()
    refused(tmp_path / name, "no such file")
    (tmp_path / name).mkdir()
    refused(tmp_path / name, "no regular file")
    with pytest.raises(DataError, match="no file can have this name"):
        open_raster(Path(f"x\0{name}"))
    with (tmp_path / f"sparse_{name}").open("wb") as stream:
        stream.write({"a.tif": b"II*\0\0\0\0\x7f", "a.npy": b"\x93NUMPY\1\0", "a.npz": b"PK\3\4"}[name])
        stream.truncate(200 * 2**30)
    refused(tmp_path / f"sparse_{name}")


def damaged(data: bytes, draw: np.random.Generator) -> bytes:
    changed = bytearray(data)
    how = draw.integers(4)
    for _ in range(int(draw.integers(1, 5))):
        at = int(draw.integers(len(changed) if draw.random() < 0.5 else min(len(changed), 500)))
        if how == 0:
            changed[at] ^= 1 << int(draw.integers(8))
        elif how == 1:
            changed[at : at + 4] = struct.pack("<I", int(draw.choice([0, 1, 255, 2**16, 2**31 - 1, 2**32 - 1])))
        elif how == 2:
            changed[at : at + 2] = draw.bytes(2)
    return bytes(changed[: int(draw.integers(len(changed)))] if how == 3 else changed)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib", "predictor": 2, "tile": (16, 16)},
        {"compression": "lzw", "rowsperstrip": 5},
        {"compression": "packbits", "bigtiff": True},
        {"compression": "zstd", "planarconfig": "separate", "photometric": "minisblack", "tile": (16, 32)},
        {"compression": "jpeg", "tile": (32, 32)},
        {"byteorder": ">"},
    ],
)
def test_damaged_bytes_are_read_or_refused_in_one_line(tmp_path: Path, options) -> None:
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (40, 36, 3)).astype(np.uint8) // 16 * 16
    given = whole.transpose(2, 0, 1) if "planarconfig" in options else whole
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, given, **{"photometric": "rgb", **options})
    data = file.read_bytes()
    failed = 0
    started = time.process_time()
    for _ in range(100):
        file.write_bytes(damaged(data, rng))
        try:
            read(file)
            with open_raster(file) as raster:
                raster.read(Window(0, 0, 1, 1))
        except DataError as error:
            failed += 1
            assert "\n" not in str(error) and str(file) in str(error)
    assert failed > 20 and time.process_time() - started < 20
