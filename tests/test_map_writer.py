"""Maps that are written row by row: what GDAL, tifffile and Pillow read of them, and that half a map is none."""

from __future__ import annotations

import errno
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from garnish.errors import DataError, MissingExtraError
from garnish.files import atomic
from garnish.pictures import map_writer
from garnish.pictures.map_writer import MapWriter
from garnish.pictures.raster import Georeference

UTM = Georeference("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0))
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def numbers(size: tuple[int, int], bands: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Any numbers of a type, its ends among them."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        found = rng.normal(0, 100, (*size, bands)).astype(dtype)
        found.flat[0] = np.nan
        return found
    ends = np.iinfo(dtype)
    found = rng.integers(ends.min, ends.max, (*size, bands), dtype, endpoint=True)
    found.flat[:2] = ends.min, ends.max
    return found


def write(path: Path, whole: np.ndarray, steps: tuple[int, ...] = (1,), place=None, **options) -> Path:
    """Write a map, as many rows at once as ``steps`` say in turn."""
    with MapWriter(path, whole.shape[:2], whole.shape[2], whole.dtype, place, **options) as writer:
        top = number = 0
        while top < len(whole):
            writer.write(whole[top : top + steps[number % len(steps)]])
            top += steps[number % len(steps)]
            number += 1
    return path


@pytest.mark.parametrize("dtype", map_writer._DTYPES)
@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_other_libraries_read_what_was_written(tmp_path: Path, dtype: str, bands: int) -> None:
    whole = numbers((37, 300), bands, dtype)
    file = write(tmp_path / "a.tif", whole, (1, 7, 3))
    np.testing.assert_array_equal(tifffile.imread(file).reshape(whole.shape), whole)
    with rasterio.open(file) as read:
        assert read.profile["tiled"] and read.profile["compress"] == "deflate" and read.crs is None
        # GDAL before 3.11 reads floats of 16 bits as 32
        np.testing.assert_array_equal(read.read().transpose(1, 2, 0), whole)
        assert read.dtypes[0] == ("float32" if dtype == "float16" else dtype)


@pytest.mark.parametrize("size", [(1, 1), (256, 256), (257, 1), (1, 513), (600, 520), (513, 511)])
@pytest.mark.parametrize("steps", [(1000,), (256, 1), (100,)])
def test_rows_of_any_number_make_the_same_file(tmp_path: Path, size, steps) -> None:
    whole = numbers(size, 1, "uint16")
    file = write(tmp_path / "a.tif", whole, steps)
    np.testing.assert_array_equal(tifffile.imread(file), whole[..., 0])
    assert file.read_bytes() == write(tmp_path / "b.tif", whole, (37,)).read_bytes()


def test_a_big_tiff_is_read_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numbers((300, 280), 3, "uint8")
    with tifffile.TiffFile(write(tmp_path / "a.tif", whole)) as opened:
        assert not opened.is_bigtiff
    monkeypatch.setattr(map_writer, "_CLASSIC", 1000)
    file = write(tmp_path / "b.tif", whole, place=UTM, nodata=7)
    with tifffile.TiffFile(file) as opened:
        assert opened.is_bigtiff
        np.testing.assert_array_equal(opened.asarray(), whole)
    with rasterio.open(file) as read:
        np.testing.assert_array_equal(read.read().transpose(1, 2, 0), whole)
        assert read.nodata == 7 and read.crs.to_epsg() == 32632
    np.testing.assert_array_equal(np.asarray(Image.open(file)), whole)


def test_a_map_that_may_pass_four_gigabytes_is_a_big_tiff(tmp_path: Path) -> None:
    for size, big in (((30_000, 30_000), False), ((33_000, 33_000), True)):
        writer = MapWriter(tmp_path / "a.tif", size, 4, "uint8", None)
        assert (writer._layout.offset.itemsize == 8) is big
        writer.abort()


def test_a_palette_shows_ids_as_colours_and_keeps_them(tmp_path: Path) -> None:
    palette = np.array([[0, 0, 0], [255, 0, 10], [3, 200, 77]], np.uint8)
    whole = np.random.default_rng(0).integers(0, 3, (20, 30, 1)).astype(np.uint8)
    file = write(tmp_path / "a.tif", whole, palette=palette, nodata=255)
    with Image.open(file) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), whole[..., 0])
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette[whole[..., 0]])
    with rasterio.open(file) as read:
        assert read.colormap(1)[2] == (3, 200, 77, 255) and read.nodata == 255
        np.testing.assert_array_equal(read.read(1), whole[..., 0])
    for given, bands, dtype in ((palette, 2, "uint8"), (palette, 1, "uint16"), (np.zeros((257, 3)), 1, "uint8")):
        with pytest.raises(DataError, match="up to 256 colours"):
            MapWriter(tmp_path / "b.tif", (4, 4), bands, dtype, None, palette=given)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32632", UTM.transform),
        ("EPSG:32760", UTM.transform),
        ("EPSG:3857", UTM.transform),
        ("EPSG:4326", (0.001, 0.0, 11.5, 0.0, -0.001, 48.25)),
        ("EPSG:3035", UTM.transform),
        ("EPSG:2154", (0.2, 0.0, 650_000.125, 0.0, -0.2, 6_860_000.5)),
        ("EPSG:32632", (7.0, 3.0, 500_000.0, 3.0, -7.0, 5_200_000.0)),  # turned
        ("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, 10.0, 5_200_000.0)),  # the south on top
        (None, UTM.transform),
    ],
)
def test_gdal_reads_the_place(tmp_path: Path, crs, transform) -> None:
    file = write(
        tmp_path / "a.tif", numbers((20, 30), 1, "float32"), place=Georeference(crs, transform), nodata=-9999.5
    )
    with rasterio.open(file) as read:
        assert read.nodata == -9999.5
        assert tuple(read.transform)[:6] == pytest.approx(transform, abs=1e-9)
        assert read.crs == (rasterio.crs.CRS.from_user_input(crs) if crs else None)
        assert read.tags().get("AREA_OR_POINT", "Area") == "Area"


def test_a_coordinate_system_as_text(tmp_path: Path) -> None:
    lambert = rasterio.crs.CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=20 +x_0=5 +y_0=6 +ellps=GRS80 +units=m")
    file = write(tmp_path / "a.tif", numbers((2, 3), 1, "uint8"), place=Georeference(lambert.to_wkt(), UTM.transform))
    with rasterio.open(file) as read:
        found = read.crs.to_dict()
    assert {name: found[name] for name in ("proj", "lat_0", "lon_0", "x_0", "y_0")} == {
        "proj": "laea", "lat_0": 10, "lon_0": 20, "x_0": 5, "y_0": 6,
    }  # fmt: skip
    for place, why in (
        (Georeference("no system", UTM.transform), "is no coordinate system"),
        (Georeference("EPSG:32632", (0.0, 0.0, 1.0, 0.0, -1.0, 1.0)), "no plane"),
        (Georeference(None, (float("nan"), 0.0, 1.0, 0.0, -1.0, 1.0)), "no plane"),
    ):
        with pytest.raises(DataError, match=why):
            MapWriter(tmp_path / "b.tif", (4, 4), 1, "uint8", place)


def test_without_rasterio_common_systems_are_written_and_others_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    whole = numbers((2, 3), 1, "uint8")
    write(tmp_path / "a.tif", whole, place=UTM)
    with pytest.raises(MissingExtraError, match=r"EPSG:3035 takes rasterio: pip install 'garnish\[geo\]'"):
        write(tmp_path / "b.tif", whole, place=Georeference("EPSG:3035", UTM.transform))


def test_half_a_map_is_none(tmp_path: Path) -> None:
    whole = numbers((40, 30), 2, "int16")
    file = tmp_path / "a.tif"
    file.write_bytes(b"old")
    with pytest.raises(DataError, match="39 of 40 rows"), MapWriter(file, (40, 30), 2, "int16", None) as writer:
        writer.write(whole[:39])
    for wrong in (whole[:, :29], whole[..., :1], whole.astype(np.uint16), whole[..., 0], np.concatenate([whole] * 2)):
        with (
            pytest.raises(DataError, match=r"a\.tif: (rows of|more rows than)"),
            MapWriter(file, (40, 30), 2, "int16", None) as writer,
        ):
            writer.write(wrong)
    with pytest.raises(KeyboardInterrupt), MapWriter(file, (40, 30), 2, "int16", None) as writer:
        writer.write(whole)
        raise KeyboardInterrupt
    writer.abort()
    writer.close()
    with pytest.raises(DataError, match="is closed"):
        writer.write(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"] and file.read_bytes() == b"old"
    writer = MapWriter(file, (40, 30), 2, "int16", None)
    writer.write(whole)
    assert file.read_bytes() == b"old"  # until it is closed
    writer.close()
    writer.abort()
    assert tifffile.imread(file).shape == (40, 30, 2)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (2**32, 1)])
def test_what_no_tiff_holds_is_refused(tmp_path: Path, size) -> None:
    with pytest.raises(DataError, match="none that TIFF holds"):
        MapWriter(tmp_path / "a.tif", size, 1, "uint8", None)
    for dtype in ("int64", "bool", "complex64", "U3"):
        with pytest.raises(DataError, match="none that TIFF holds"):
            MapWriter(tmp_path / "a.tif", (4, 4), 1, dtype, None)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch) -> None:
    whole = numbers((600, 30), 1, "uint8")
    writer = MapWriter(tmp_path / "a.tif", (600, 30), 1, "uint8", None)

    class Full:
        closed = False

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(stream, name)

    stream = writer._file.stream
    writer._file.stream = Full()
    with pytest.raises(DataError, match=r"a\.tif cannot be written \(No space left on device\); free some space"):
        writer.write(whole)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="cannot be written"):
        MapWriter(tmp_path / ("x" * 300), (4, 4), 1, "uint8", None)


def test_memory_is_one_row_of_tiles(tmp_path: Path) -> None:
    """6000×6000 floats are 144 MB; a row of 512-pixel tiles of them is 12.6 MB."""
    rows = np.zeros((100, 6000, 1), np.float32)
    tracemalloc.start()
    with MapWriter(tmp_path / "a.tif", (6000, 6000), 1, "float32", None) as writer:
        for _ in range(60):
            writer.write(rows)
    assert tracemalloc.get_traced_memory()[1] < 16e6
    tracemalloc.stop()
    with rasterio.open(tmp_path / "a.tif") as read:
        assert read.shape == (6000, 6000)


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    first = MapWriter(tmp_path / "a.tif", (4, 4), 1, "uint8", None)
    with pytest.raises(DataError, match=r"somebody else is writing it\); let no other process write there"):
        MapWriter(tmp_path / "a.tif", (4, 4), 1, "uint8", None)
    other = MapWriter(tmp_path / "b.tif", (4, 4), 1, "uint8", None)
    atomic.write_file(tmp_path / "c", b"")
    for writer in (first, other):
        writer.write(np.ones((4, 4, 1), np.uint8))
        writer.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif", "c"]


def test_what_a_kill_or_a_stranger_left_is_replaced(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    left = tmp_path / ".a.tif.growing"
    for leave in (
        lambda: left.write_bytes(b"half"),
        lambda: left.symlink_to(kept),
        lambda: left.hardlink_to(kept),
        lambda: left.symlink_to(tmp_path / "none"),
    ):
        leave()
        whole = numbers((4, 4), 1, "uint8")
        np.testing.assert_array_equal(tifffile.imread(write(tmp_path / "a.tif", whole)), whole[..., 0])
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "kept"] and kept.read_bytes() == b"kept"
