"""Pictures of every depth, number of bands and format: numbers known before, written by other libraries."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from garnish.errors import DataError, MissingExtraError
from garnish.files import pictures
from garnish.files.orientation import turn
from garnish.files.pictures import read_picture
from garnish.pictures import reading, tiff_page
from garnish.pictures.band_files import BandFiles
from garnish.pictures.bands import MOST_BANDS
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import Window
from picture_files import write_png, write_tiff

DEPTHS = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
GDAL = ("uint8", "uint16", "uint32", "int16", "int32", "float32", "float64")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def numbers(size: tuple[int, int], bands: int, dtype: str) -> np.ndarray:
    """(H, W, bands) of a type, with its ends; smooth, so that predictors have something to predict."""
    rng = np.random.default_rng(bands)
    ramp = np.add.outer(np.arange(size[0]), np.arange(size[1]))[..., None] * 37.25 + rng.normal(0, 5, (*size, bands))
    if np.dtype(dtype).kind == "f":
        found = (ramp - 900).astype(dtype)
        found.flat[:3] = np.nan, np.inf, np.finfo(dtype).min
        return found
    ends = np.iinfo(dtype)
    found = ramp.astype(np.int64).astype(dtype)  # wraps around
    found.flat[:2] = ends.min, ends.max
    return found


def check(path: Path, whole: np.ndarray, bands: int | None = None) -> None:
    """A file reads to ``whole``, and windows are its parts."""
    height, width = whole.shape[:2]
    with open_raster(path, bands) as raster:
        assert raster.facts.size == (height, width) and raster.facts.dtype == whole.dtype.name
        assert len(raster.facts.bands) == whole.shape[2]
        found = raster.read()
        assert found.dtype == whole.dtype and found.flags.writeable
        np.testing.assert_array_equal(found, whole)
        draw = np.random.default_rng(0)
        for _ in range(6):
            top, left = int(draw.integers(height)), int(draw.integers(width))
            h, w = int(draw.integers(1, height - top + 1)), int(draw.integers(1, width - left + 1))
            part = raster.read(Window(top, left, h, w))
            np.testing.assert_array_equal(part, whole[top : top + h, left : left + w])
            part[:] = 0  # which must not reach what is kept
        np.testing.assert_array_equal(raster.read(), whole)


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 10])
def test_tiffs_of_tifffile(tmp_path: Path, dtype: str, bands: int) -> None:
    whole = numbers((37, 45), bands, dtype)
    given = whole[..., 0] if bands == 1 else whole
    predictor = {"f": 3}.get(whole.dtype.kind, 2)
    for number, options in enumerate(
        [
            {},
            {"rowsperstrip": 7},
            {"tile": (16, 32)},
            {"bigtiff": True, "tile": (32, 16), "compression": "zlib"},
            {"byteorder": ">", "rowsperstrip": 5, "compression": "zlib", "predictor": predictor},
            {"compression": "lzw", "predictor": predictor, "tile": (16, 16)},
            {"compression": "lzw", "rowsperstrip": 36},
            {"compression": "packbits", "rowsperstrip": 8},
            {"byteorder": ">", "bigtiff": True, "compression": "zstd", "predictor": predictor, "tile": (64, 64)},
        ]
    ):
        for planar in ("contig", "separate")[: 1 + (bands > 1)]:
            pixels = given.transpose(2, 0, 1) if planar == "separate" else given
            file = tmp_path / f"{number}{planar}.tif"
            tifffile.imwrite(
                file, pixels, photometric="minisblack", planarconfig=planar if bands > 1 else None, **options
            )
            check(file, whole)


@pytest.mark.parametrize("dtype", GDAL)
@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_tiffs_of_gdal(tmp_path: Path, dtype: str, bands: int, interleave: str) -> None:
    whole = numbers((70, 51), bands, dtype)
    floats = whole.dtype.kind == "f"
    for options in (
        {},
        {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate", "predictor": 3 if floats else 2},
        {"compress": "lzw", "predictor": 2, "BIGTIFF": "YES"} if dtype != "float64" else {"compress": "lzw"},
        {"compress": "zstd", "endianness": "BIG", "blockysize": 9},
        {"compress": "packbits"},
    ):
        shape = {"height": 70, "width": 51, "count": bands, "dtype": dtype}
        with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", interleave=interleave, **shape, **options) as made:
            made.write(whole.transpose(2, 0, 1))
        check(tmp_path / "a.tif", whole)


@pytest.mark.parametrize("compress", ["DEFLATE", "LZW", "ZSTD"])
def test_cloud_optimised_tiffs_with_smaller_copies(tmp_path: Path, compress: str) -> None:
    whole = numbers((300, 270), 3, "uint16")
    shape = {"height": 300, "width": 270, "count": 3, "dtype": "uint16"}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="COG", **shape, compress=compress, predictor="YES", blocksize=128
    ) as made:
        made.write(whole.transpose(2, 0, 1))
    with rasterio.open(tmp_path / "a.tif") as made:
        assert made.overviews(1)
    check(tmp_path / "a.tif", whole)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 32)}, {"rowsperstrip": 16}])
def test_jpeg_tiffs_are_what_others_decode(tmp_path: Path, options) -> None:
    whole = numbers((48, 64), 3, "uint8")
    file = tmp_path / "a.tif"
    for given, photometric in ((whole, "rgb"), (whole, "ycbcr"), (whole[..., 0], "minisblack")):
        if photometric == "ycbcr":
            tifffile.imwrite(file, given, compression="jpeg", photometric="ycbcr", subsampling=(2, 2), **options)
        else:
            tifffile.imwrite(file, given, compression="jpeg", photometric=photometric, **options)
        theirs = tifffile.imread(file).reshape(48, 64, -1)
        check(file, theirs)
        np.testing.assert_array_equal(np.asarray(Image.open(file)).reshape(theirs.shape), theirs)
        with open_raster(file) as raster:
            assert raster.facts.notes["lossy"] == "JPEG"
            assert raster.facts.bands == ((None,) if given.ndim == 2 else ("red", "green", "blue"))
    shape = {"height": 48, "width": 64, "dtype": "uint8"}
    for bands, photometric in ((3, "ycbcr"), (3, "rgb"), (1, "minisblack")):
        more = {"count": bands, "photometric": photometric}
        with rasterio.open(file, "w", driver="GTiff", compress="jpeg", **shape, **more) as made:
            made.write(whole.transpose(2, 0, 1)[:bands])
        # GDAL repeats colours that were stored at half the size, others interpolate them
        with rasterio.open(file) as made:
            check(file, tifffile.imread(file) if photometric == "ycbcr" else made.read().transpose(1, 2, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("planar", [False, True])
def test_turned_tiffs_are_read_upright(tmp_path: Path, orientation: int, planar: bool) -> None:
    whole = numbers((9, 14), 3, "uint16")
    file = write_tiff(tmp_path / "a.tif", whole, orientation=orientation, planar=planar)
    check(file, turn(whole, orientation))
    eight = whole.astype(np.uint8)
    file = write_tiff(tmp_path / "b.tif", eight, orientation=orientation)
    with open_raster(file) as raster:
        np.testing.assert_array_equal(raster.read(), read_picture(file))


def test_pages_of_one_band_are_bands_and_others_are_refused(tmp_path: Path) -> None:
    whole = numbers((20, 30), 4, "uint16")
    file = tmp_path / "a.tif"

    def write(*pages: np.ndarray, **options) -> None:
        with tifffile.TiffWriter(file) as made:
            for page in pages:
                made.write(page, contiguous=False, metadata=None, **options)

    write(*whole.transpose(2, 0, 1))
    check(file, whole)
    tifffile.imwrite(file, whole.transpose(2, 0, 1), photometric="minisblack")
    check(file, whole)
    for pages in (
        (whole[..., 0], whole[:19, :, 0]),
        (whole[..., 0], whole[..., 0].astype(np.int16)),
        (whole[..., :3], whole[..., :3]),
        (whole[..., 0], whole[..., :3]),
    ):
        write(*pages)
        with pytest.raises(DataError, match=r"several pages.*save the one that is meant"):
            open_raster(file)
    with tifffile.TiffWriter(file) as made:  # a pyramid
        made.write(whole[..., :3], photometric="rgb", tile=(16, 16), metadata=None)
        made.write(whole[::2, ::2, :3], subfiletype=1, photometric="rgb", tile=(16, 16), metadata=None)
        made.write(whole[..., 0] > 9, subfiletype=4, metadata=None)
    check(file, whole[..., :3])
    with open_raster(file) as raster:
        assert "mask" in raster.facts.notes and raster.facts.windows
    tifffile.imwrite(file, whole.transpose(2, 0, 1), imagej=True)
    with tifffile.TiffFile(file) as made:
        listed = len(made.pages)
    tifffile.imwrite(file, numbers((5, 20), 4, "uint8").transpose(2, 0, 1), imagej=True)
    data = bytearray(file.read_bytes())
    at = data.find(b"images=4")
    data[at : at + 8] = b"images=9"
    file.write_bytes(data)
    with pytest.raises(DataError, match="more pages than it lists, as ImageJ"):
        open_raster(file)
    assert listed == 4
    with tifffile.TiffWriter(file) as made:
        made.write(whole.transpose(2, 0, 1), photometric="minisblack", truncate=True)
    with pytest.raises(DataError, match="more pages than it lists"):
        open_raster(file)


def test_palettes_and_names_of_bands(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 5, (20, 30)).astype(np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
    image = Image.fromarray(ids, "P")
    image.putpalette(palette.tobytes())
    for name in ("a.tif", "a.png"):
        image.save(tmp_path / name)
        check(tmp_path / name, palette[ids])
        np.testing.assert_array_equal(read_picture(tmp_path / name), palette[ids])
        with open_raster(tmp_path / name) as raster:
            assert raster.facts.bands == ("red", "green", "blue")
    whole = numbers((20, 30), 5, "uint16")
    tifffile.imwrite(tmp_path / "b.tif", whole, photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    with open_raster(tmp_path / "b.tif") as raster:
        assert raster.facts.bands == ("red", "green", "blue", "alpha", None)
    tifffile.imwrite(tmp_path / "b.tif", whole[..., :4], photometric="separated")
    with open_raster(tmp_path / "b.tif") as raster:
        assert raster.facts.bands == ("cyan", "magenta", "yellow", "black")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("orientation", [None, 6, 7])
def test_pngs(tmp_path: Path, dtype: str, bands: int, orientation: int | None) -> None:
    whole = numbers((11, 13), bands, dtype)
    file = write_png(tmp_path / "a.png", whole, np.dtype(dtype).itemsize * 8, orientation=orientation)
    check(file, turn(whole, orientation or 1))
    with open_raster(file) as raster:
        named = {1: (None,), 2: (None, "alpha"), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}
        assert raster.facts.bands == named[bands] and not raster.facts.windows


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.bmp", "a.ppm", "a.gif", "a.jp2", "a.avif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "1"])
def test_other_pictures_are_what_read_picture_reads(tmp_path: Path, name: str, mode: str) -> None:
    image = Image.fromarray(numbers((24, 32), 3, "uint8")).convert(mode)
    try:
        image.save(tmp_path / name)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"no {mode} in {name}")
    theirs = read_picture(tmp_path / name)
    with open_raster(tmp_path / name) as raster:
        found = raster.read()
    np.testing.assert_array_equal(np.broadcast_to(found[..., :3], theirs.shape), theirs)


def test_floats_and_wide_whole_numbers_of_pillow(tmp_path: Path) -> None:
    whole = numbers((9, 8), 1, "float32")
    Image.fromarray(whole[..., 0]).save(tmp_path / "a.tif")
    check(tmp_path / "a.tif", whole)
    deep = numbers((9, 8), 1, "uint16")
    Image.fromarray(deep[..., 0]).save(tmp_path / "a.pgm")
    check(tmp_path / "a.pgm", deep)


@pytest.mark.parametrize("dtype", [*DEPTHS, "int64", "uint64", ">u2", ">f4", "bool"])
def test_arrays(tmp_path: Path, dtype: str) -> None:
    whole = np.arange(12 * 9 * 5).reshape(12, 9, 5).astype(dtype)
    native = whole.astype(np.uint8) if dtype == "bool" else whole.astype(whole.dtype.newbyteorder("="))
    npy, npz = tmp_path / "a.npy", tmp_path / "a.npz"
    np.save(npy, whole)
    check(npy, native)
    check(npy, native, bands=5)
    np.save(npy, whole[..., 0])
    check(npy, native[..., :1], bands=7)  # two axes have no bands to choose
    for save in (np.savez, np.savez_compressed):
        save(npz, whole)
        check(npz, native)
        save(npz, x=np.asfortranarray(whole))
        check(npz, native)
        save(npz, **{f"band {number}": whole[..., number] for number in (3, 0, 1)})
        check(npz, native[..., [3, 0, 1]])
        with open_raster(npz) as raster:
            assert raster.facts.bands == ("band 3", "band 0", "band 1")


def test_the_number_of_bands_tells_which_axis_they_are(tmp_path: Path) -> None:
    whole = numbers((20, 30), 5, "uint16")
    file = tmp_path / "a.npy"
    for save in (np.save, np.savez):
        file = tmp_path / ("a.npz" if save is np.savez else "a.npy")
        save(file, np.ascontiguousarray(whole.transpose(2, 0, 1)))
        check(file, whole, bands=5)
        for bands in (None, 4):
            with pytest.raises(DataError, match=r"\(5, 20, 30\), which may be \(C, H, W\); state as many `channels`"):
                open_raster(file, bands)
        save(file, whole[:4, :, :])  # (4, 30, 5)
        check(file, whole[:4], bands=5)
        with pytest.raises(DataError, match="may be"):
            open_raster(file)
        save(file, whole[:5])  # both are 5: the last one
        check(file, whole[:5], bands=5)
        for shape in ((5,), (2, 3, 4, 5), ()):
            save(file, np.zeros(shape, np.uint8))
            with pytest.raises(DataError, match=r"save it as \(H, W\) or \(H, W, C\)"):
                open_raster(file)
    np.save(tmp_path / "a.npy", np.asfortranarray(whole))
    with pytest.raises(DataError, match="by columns"):
        open_raster(tmp_path / "a.npy")


def test_a_file_a_band(tmp_path: Path) -> None:
    whole = numbers((20, 30), 3, "uint16")
    files = {}
    for number, (name, ending) in enumerate({"red": "png", "nir": "tif", "height": "npy"}.items()):
        files[name] = tmp_path / f"{name}.{ending}"
        if ending == "png":
            write_png(files[name], whole[..., number : number + 1])
        elif ending == "tif":
            tifffile.imwrite(files[name], whole[..., number])
        else:
            np.save(files[name], whole[..., number])
    with BandFiles(files) as raster:
        assert raster.facts.bands == ("red", "nir", "height") and raster.facts.dtype == "uint16"
        assert raster.facts.size == (20, 30) and not raster.facts.windows
        np.testing.assert_array_equal(raster.read(), whole)
        np.testing.assert_array_equal(raster.read(Window(3, 4, 5, 6)), whole[3:8, 4:10])
        with pytest.raises(DataError, match="no part of its 30x20"):
            raster.read(Window(0, 25, 5, 6))
    np.save(files["height"], whole[..., 2].astype(np.float32))
    with BandFiles(files) as raster:
        assert raster.facts.dtype == "float32"
        np.testing.assert_array_equal(raster.read(), whole)
    np.save(files["height"], whole[..., 2].astype(np.int64))
    np.save(tmp_path / "f.npy", whole[..., 2].astype(np.float64))
    with pytest.raises(DataError, match="no type holds exactly"):
        BandFiles({**files, "f": tmp_path / "f.npy"})
    np.save(files["height"], whole[:19, :, 2])
    with pytest.raises(DataError, match=r"height\.npy: is 30x19, but .*red\.png is 30x20; bring all bands to one size"):
        BandFiles(files)
    np.save(files["height"], whole)
    with pytest.raises(DataError, match="holds 3 bands, but is the file of height alone"):
        BandFiles(files)
    with pytest.raises(DataError, match=r"none\.tif: no such file"):
        BandFiles({"red": tmp_path / "none.tif"})
    with pytest.raises(DataError, match="0 files"):
        BandFiles({})


def test_a_window_of_a_large_file_takes_what_it_touches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are read of the file, counted where it is read."""
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 65536, (1000, 1200, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "tiles.tif", whole, tile=(64, 64), compression="zlib", photometric="rgb")
    tifffile.imwrite(tmp_path / "strip.tif", whole, photometric="rgb", rowsperstrip=1000)
    tifffile.imwrite(tmp_path / "strips.tif", whole, photometric="rgb", rowsperstrip=8, compression="lzw")
    np.save(tmp_path / "a.npy", whole)
    for name, most in (("tiles.tif", 9 * 64 * 64 * 6), ("strip.tif", 70 * 7200), ("strips.tif", 10 * 8 * 7200 * 1.5),
                       ("a.npy", 70 * 7200)):  # fmt: skip
        with open_raster(tmp_path / name) as raster:
            assert raster.facts.windows
            stream, read = raster._stream, [0]

            def counted(size: int, stream=stream, read=read, plain=stream.read) -> bytes:
                read[0] += size
                return plain(size)

            monkeypatch.setattr(stream, "read", counted, raising=False)
            found = raster.read(Window(500, 600, 64, 64))
            np.testing.assert_array_equal(found, whole[500:564, 600:664])
            assert 64 * 64 * 6 <= read[0] <= most * 1.01 + 1000, name
    tifffile.imwrite(tmp_path / "one.tif", whole, rowsperstrip=1000, compression="zlib", photometric="rgb")
    with open_raster(tmp_path / "one.tif") as raster:
        assert not raster.facts.windows


@pytest.mark.parametrize(
    "window", [(-1, 0, 2, 2), (0, 0, 0, 2), (0, 0, 2, 0), (19, 0, 2, 2), (0, 29, 2, 2), (0, 0, 99, 1)]
)
def test_windows_outside_are_refused(tmp_path: Path, window) -> None:
    whole = numbers((20, 30), 1, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", whole[..., 0])
    Image.fromarray(whole[..., 0]).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", whole)
    np.savez(tmp_path / "a.npz", whole)
    for name in ("a.tif", "a.png", "a.npy", "a.npz"):
        with (
            open_raster(tmp_path / name) as raster,
            pytest.raises(DataError, match=f"{name}.*are no part of its 30x20"),
        ):
            raster.read(Window(*window))
        raster.close()  # again


def _png(path: Path, whole: np.ndarray) -> None:
    write_png(path, whole, whole.dtype.itemsize * 8)


def _pillow(path: Path, whole: np.ndarray) -> None:
    Image.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole).save(path)


def _tiff(compression: str):
    return lambda path, whole: tifffile.imwrite(
        path, whole, compression=compression, photometric="minisblack", tile=(16, 16)
    )


#: Row of the page → suffix and the ways to write such a file.
WRITERS = {
    "PNG": [("png", _png)],
    "JPEG, WebP, BMP, GIF, AVIF, JPEG 2000": [(end, _pillow) for end in ("jpg", "webp", "bmp", "gif", "avif", "jp2")],
    "PGM, PPM": [("pgm", _pillow)],
    "TIFF, not compressed or by deflate": [("tif", _tiff("none")), ("tif", _tiff("zlib"))],
    "TIFF by LZW, PackBits, ZSTD": [("tif", _tiff(name)) for name in ("lzw", "packbits", "zstd")],
    "TIFF by JPEG": [("tif", _tiff("jpeg"))],
    "`.npy`": [("npy", np.save)],
    "`.npz`": [("npz", lambda path, whole: np.savez(path, whole))],
}


def table() -> dict[str, list[str]]:
    """The rows of the page's first table."""
    page = (Path(__file__).parents[1] / "docs" / "pictures.md").read_text("utf-8")
    lines = page.partition("| --- |")[2].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: lines.index("")]]
    return {row[0]: row[1:] for row in rows}


def test_the_page_names_every_kind() -> None:
    assert list(table()) == list(WRITERS)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_table_of_the_page_is_true(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    depths, _, windows, needs = table()[kind]
    depths = depths.replace("those of TIFF", ", ".join(DEPTHS)).replace("truth values", "bool").replace(" (grey)", "")
    for dtype in (*DEPTHS, "int64", "uint64", "bool"):
        if kind.startswith(("JPEG", "TIFF by JPEG", "P", "BMP")) and dtype not in depths.split(", "):
            continue  # nothing writes such a file
        whole = numbers((24, 40), 1, dtype) if dtype != "bool" else numbers((24, 40), 1, "uint8") > 99
        for number, (suffix, write) in enumerate(WRITERS[kind]):
            file = tmp_path / f"{dtype}{number}.{suffix}"
            write(file, whole)
            if dtype not in depths.split(", "):
                with pytest.raises(DataError, match="not read"):
                    open_raster(file)
                continue
            with open_raster(file) as raster:
                assert raster.facts.windows == (windows == "yes")
                assert raster.facts.dtype == (dtype if dtype != "bool" else "uint8")
                assert raster.read().shape[:2] == (24, 40)
            with monkeypatch.context() as without:
                for name in ("imagecodecs", "tifffile", "rasterio"):
                    without.setitem(sys.modules, name, None)
                if needs == "–":
                    open_raster(file).close()
                else:
                    with pytest.raises(MissingExtraError, match=rf"'garnish\[{needs}\]'"):
                        open_raster(file)


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    page = (Path(__file__).parents[1] / "docs" / "pictures.md").read_text("utf-8")
    for text in (
        f"{pictures.MAX_SIDE:,} pixels; of TIFF and `.npy` {reading.LONGEST_SIDE:,}",
        f"| bands | {MOST_BANDS:,} |",
        f"{pictures.MAX_BYTES // 2**30} GiB; of TIFF and `.npy` {reading.MOST_BYTES // 2**40} TiB",
        f"| what one call reads | {reading.MOST_READ // 2**30} GiB |",
        f"{pictures.FREE_PIXELS // 10**6} million, and {pictures.PIXELS_PER_BYTE} for each of its bytes",
        f"| tiles or strips | {tiff_page._MOST_SEGMENTS:,} |",
    ):
        assert text in page
