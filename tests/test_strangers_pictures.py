"""Pictures, labels and MATLAB files of strangers: what they ask for is bounded before it is given, in one line."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from garnish.data.layouts.pascal_context import _label_map, _parts
from garnish.errors import DataError
from garnish.files.label_files import open_label, read_array, refuse_lossy
from garnish.files.matlab import read_mat
from garnish.files.pictures import open_picture, picture_size, read_picture
from garnish.files.regular import open_regular
from picture_files import write_png, write_tiff

READERS = (read_picture, picture_size, read_array)


def refused(reader, *args) -> str:
    started = time.perf_counter()
    with pytest.raises(DataError) as error:
        reader(*args)
    assert "\n" not in str(error.value) and str(args[0]) in str(error.value)
    assert time.perf_counter() - started < 5
    return str(error.value)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_that_says(width: int, height: int, bits: int = 8, more: bytes = b"") -> bytes:
    """A PNG of a stated size, with nearly no data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def gif(frames: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame * frames + b";"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("reader", READERS)
def test_sides_and_pixels_are_bounded_before_decoding(tmp_path: Path, reader) -> None:
    file = tmp_path / "a.png"
    for size, why in (
        ((178_000_000, 1), "a side of more than 65,535"),
        ((1, 70_000), "a side of more than 65,535"),
        ((13_000, 13_000), "which is not trusted beyond 67"),
        ((60_000, 60_000), "damaged or not a picture|megapixels"),
    ):
        file.write_bytes(png_that_says(*size))
        message = refused(reader, file)
        assert any(part in message for part in why.split("|")), message


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_large_pictures_are_read_if_their_files_are_large(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png_that_says(13_000, 13_000, more=chunk(b"teXt", bytes(400_000))))
    with pytest.raises(DataError, match="damaged or not a picture"):  # its size is fine, its data are missing
        picture_size(file)
    wide = write_png(tmp_path / "wide.png", np.zeros((1, 65_535, 1)), 8)
    assert picture_size(wide) == (1, 65_535)


@pytest.mark.parametrize("reader", READERS)
def test_no_more_memory_is_made_than_a_file_has(tmp_path: Path, reader) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR" + bytes(40))
    (tmp_path / "a.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", 2**31 - 1) + b"jp2h" + bytes(40))
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{" * 40)
    for name in ("a.png", "a.jp2", "a.npy"):
        tracemalloc.start()
        refused(reader, tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6, name


def test_a_read_of_more_than_there_is_makes_no_room(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(bytes(range(100)) * 1000)
    tracemalloc.start()
    with open_regular(file, 10**6) as stream:
        assert stream.read(10) == bytes(range(10))
        assert len(stream.read(2**33)) == 99_990 and stream.read(2**33) == b""
        stream.seek(-5, os.SEEK_END)
        assert stream.read() == bytes(range(95, 100))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("reader", READERS)
def test_many_pages_and_frames_are_not_counted(tmp_path: Path, reader) -> None:
    """60,000 pages took a minute: Pillow looks for each one among all before it."""
    out = bytearray(b"II*\0" + struct.pack("<I", 8))
    entries = [(256, 4, 1), (257, 4, 1), (258, 3, 8), (262, 3, 1), (273, 4, 8), (279, 4, 1), (254, 4, 1)]
    for page in range(8000):
        following = len(out) + 2 + 12 * len(entries) + 4
        out += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in entries)
        out += struct.pack("<I", following if page < 7999 else 0)
    for name, data in (("a.tif", bytes(out)), ("a.gif", gif(30_000))):
        (tmp_path / name).write_bytes(data)
        started = time.process_time()
        assert "several pages or frames" in refused(reader, tmp_path / name)
        assert time.process_time() - started < 0.5
    (tmp_path / "one.gif").write_bytes(gif(1))
    assert picture_size(tmp_path / "one.gif") == (1, 1)
    assert read_array(write_tiff(tmp_path / "b.tif", np.ones((5, 6, 1), np.uint8), pages=(0, 1, 1, 4))).shape == (5, 6)


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.mat"])
def test_only_regular_files_with_possible_names_are_opened(tmp_path: Path, name: str) -> None:
    readers = (lambda file: read_mat(file, "a"),) if name == "a.mat" else READERS
    os.mkfifo(pipe := tmp_path / name)
    for reader in readers:
        assert "no regular file" in refused(reader, pipe)
        with pytest.raises(DataError, match="no file can have this name"):
            reader(Path(f"x\0{name}"))
    refuse_lossy(pipe)  # passes, without waiting
    pipe.unlink()
    pipe.mkdir()
    for reader in readers:
        assert "no regular file" in refused(reader, pipe)
    with (tmp_path / f"sparse_{name}").open("wb") as stream:
        stream.truncate(200 * 2**30)
    for reader in readers:
        assert "more than the" in refused(reader, tmp_path / f"sparse_{name}")
    if Path("/dev/zero").exists():
        (tmp_path / f"zero_{name}").symlink_to("/dev/zero")
        for reader in readers:
            assert "no regular file" in refused(reader, tmp_path / f"zero_{name}")


def test_sixteen_bits_of_any_filter_and_interlace(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def filtered(rows: np.ndarray, step: int) -> bytes:
        out, above = b"", np.zeros(rows.shape[1], np.int64)
        for number, row in enumerate(rows.astype(np.int64)):
            left, corner = (np.r_[np.zeros(step, np.int64), line[:-step]] for line in (row, above))
            guess = left + above - corner
            near = [abs(guess - one) for one in (left, above, corner)]
            paeth = np.choose(np.argmin(near, axis=0), [left, above, corner])
            kind = number % 5
            out += bytes([kind])
            out += ((row - [0, left, above, (left + above) // 2, paeth][kind]) % 256).astype(np.uint8).tobytes()
            above = row
        return out

    plain, laced = (
        ((0, 0, 1, 1),),
        ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    )
    for bands, kind in ((2, 4), (3, 2), (4, 6)):
        for lace, passes in enumerate((plain, laced)):
            pixels = rng.integers(0, 65536, (11, 13, bands)).astype(">u2")
            if bands != 3:
                pixels[..., -1] = 65535
            data = b""
            for top, left, down, right in passes:
                part = pixels[top::down, left::right]
                data += filtered(np.frombuffer(part.tobytes(), np.uint8).reshape(part.shape[0], -1), 2 * bands)
            head = chunk(b"IHDR", struct.pack(">IIBBBBB", 13, 11, 16, kind, 0, 0, lace))
            file = tmp_path / "a.png"
            start = b"\x89PNG\r\n\x1a\n" + head
            file.write_bytes(start + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
            want = pixels.astype(np.uint16)[..., : 3 if bands > 2 else 1]
            np.testing.assert_array_equal(read_array(file).reshape(want.shape), want)
            colours = np.rint(want / 257).astype(np.uint8)
            np.testing.assert_array_equal(read_picture(file), np.broadcast_to(colours, (11, 13, 3)))
            short = start + chunk(b"IDAT", zlib.compress(data[: len(data) // 2])) + chunk(b"IEND", b"")
            file.write_bytes(short)
            for reader in READERS:
                refused(reader, file)


def header(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (header("(3, 4)")[:-8] + b"(((((((", "not a readable"),
        (b"\x93NUMPY\1\0\x10\0" + b"('''" + bytes(12), "not a readable"),
        (header("(2, (3"), "not a readable"),
        (header("(-1, -4)") + bytes(4), "a shape of"),
        (header("(True, 4)") + bytes(4), "a shape of"),
        (header("(65536, 65536)") + bytes(4), "cut it into smaller files"),
        (header("(4294967296, 4294967296, 4294967296)"), "cut it into smaller files"),
        (header("(20000, 20000)") + bytes(4), "4 bytes, where .* needs 400,000,000"),
        (header(f"({'1, ' * 90})") + bytes(4), "not a readable"),
        (header("(4,)", "'|O'") + bytes(32), "Python's objects"),
        (header("(1, 1)", "[('a', '<i4')]") + bytes(4), "no plain numbers"),
        (header("(1,)", "('<i4', (1000000000,))") + bytes(4), "no plain numbers|not a readable"),
        (header("(1,)", "'" + "(" * 9000 + "'") + bytes(4), "not a readable"),
        (b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"-" * 9000, "not a readable"),
    ],
)
def test_damaged_npy_headers_end_in_one_line(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(DataError, match=why):
        open_label(tmp_path / "a.npy")


def test_npy_arrays_are_what_numpy_saves(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for dtype in ("u1", "?", "<i8", ">i4", "f2", "<f8", ">f4"):
        for values in (rng.integers(0, 9, (3, 4)).astype(dtype), rng.integers(0, 9, (2, 3, 4)).astype(dtype)):
            for one in (values, np.asfortranarray(values), values[:0], values[..., ::2]):
                np.save(tmp_path / "a.npy", one)
                read = read_array(tmp_path / "a.npy")
                assert read.dtype == one.dtype and read.flags.writeable
                np.testing.assert_array_equal(read, one)


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(cls: int, shape: tuple[int, ...], content: bytes, name: bytes = b"") -> bytes:
    head = element(6, struct.pack("<II", cls, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, head + element(1, name) + content)


def mat(*variables: bytes) -> bytes:
    return (
        b"MATLAB 5.0".ljust(124)
        + b"\0\1IM"
        + b"".join(struct.pack("<II", 15, len(packed)) + packed for packed in map(zlib.compress, variables))
    )


def fields(count: int, names: bytes, width: int, values: bytes) -> bytes:
    return matrix(2, (count, 1), element(5, struct.pack("<i", width)) + element(1, names) + values, b"a")


def test_fields_of_matlab_files_take_time_by_their_number(tmp_path: Path) -> None:
    """10 kB took 23 seconds: each structure made a copy of all values behind its own."""
    file = tmp_path / "a.mat"
    file.write_bytes(mat(fields(90_000, b"x\0", 2, struct.pack("<II", 14, 0) * 90_000)))
    assert file.stat().st_size < 10_000
    started = time.process_time()
    found = read_mat(file, "a")
    assert time.process_time() - started < 4
    assert isinstance(found, list) and len(found) == 90_000 and list(found[0]) == ["x"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (mat(fields(1, bytes(2_000_000), 1, b"")), "cells or fields"),
        (mat(fields(1, b"x\0x\0", 2, struct.pack("<II", 14, 0) * 2)), "two fields of one name"),
        (mat(fields(2**31 - 1, b"x\0", 2, b"")), "cells or fields"),
        (mat(matrix(6, (2**31 - 1,) * 1000, b"", b"a")), "dimensions"),
        (mat(matrix(6, (2**31 - 1,) * 32, element(9, bytes(8)), b"a")), "for numbers of shape"),
        (mat(matrix(6, (1, 1), element(9, bytes(8)), b"a" * 5000)), "a name of 5,000 bytes"),
        (mat(matrix(4, (1, 9), element(16, b"x" * 2**23), b"a")), "a text of"),
        (mat(*[matrix(6, (1, 1), element(9, bytes(8)))])[:128] + bytes(8) * 120_000, "variables"),
        (mat(matrix(6, (1, 1), element(9, bytes(8)), b"a"))[:-9], "ends too early"),
    ],
)
def test_matlab_files_that_declare_too_much(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.mat").write_bytes(data)
    assert why in refused(read_mat, tmp_path / "a.mat", "a")


def test_label_maps_of_pascal_context_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    for values, why in (
        (np.zeros((2000, 2), np.uint8), "1024 at most"),
        (np.full((2, 2), 460, np.uint16), "the ids 0 to 459"),
        (np.full((2, 2), -1, np.int16), "the ids 0 to 459"),
        (np.full((2, 2), 2.0**70), "the ids 0 to 459"),
    ):
        savemat(file, {"LabelMap": values}, do_compression=True)
        assert why in refused(_label_map, file)
    ragged = np.empty((1, 2), object)
    ragged[0, 0], ragged[0, 1] = np.zeros((2, 2)), np.zeros((3, 3))
    savemat(file, {"anno": {"objects": {"class_ind": ragged, "parts": 1}}})
    assert "class_ind" in refused(_parts, file)


def test_whatever_pillow_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbled files made it raise KeyError, IndexError, RuntimeError, MemoryError and more."""
    file = tmp_path / "a.png"
    Image.fromarray(np.ones((3, 4, 3), np.uint8)).save(file)
    for error in (KeyError(338), IndexError("index out of range"), RuntimeError("Reformat failed"), MemoryError()):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(Image, "open", fail)
        for reader in (open_picture, picture_size, open_label):
            told = refused(reader, file)
            assert ("more memory" if isinstance(error, MemoryError) else type(error).__name__) in told
