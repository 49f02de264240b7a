"""What a file holds is what is read, or it is refused: files written byte by byte against the numbers put into them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from garnish.errors import DataError
from garnish.files.label_files import open_label, read_array, refuse_lossy
from garnish.files.pictures import PICTURE_SUFFIXES, picture_size
from picture_files import read_picture, write_pgm, write_png, write_tiff

RNG = np.random.default_rng(0)


def numbers(bits, bands, opaque=True):
    values = RNG.integers(0, 2**bits, (5, 7, bands))
    values[0, 0] = 2**bits - 1
    if opaque and bands in (2, 4):
        values[..., -1] = 2**bits - 1
    return values


def refused(call, *args) -> str:
    with pytest.raises(DataError) as error:
        call(*args)
    text = str(error.value)
    assert "\n" not in text
    assert "; " in text
    return text


# labels: the numbers as they stand


@pytest.mark.parametrize(
    ("bits", "bands"), [(1, 1), (8, 1), (16, 1), (8, 2), (16, 2), (8, 3), (16, 3), (8, 4), (16, 4)]
)
def test_png_labels_are_the_stored_numbers(tmp_path, bits, bands):
    values = numbers(bits, bands)
    read = read_array(write_png(tmp_path / "a.png", values, bits))
    wanted = values[..., :3] if bands > 2 else values[..., 0]
    assert read.dtype == {1: bool, 8: np.uint8, 16: np.uint16}[bits]
    assert (read == wanted).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_labels_are_indices_and_colours_where_asked(tmp_path, bits):
    values = RNG.integers(0, 2**bits, (5, 7, 1))
    file = write_png(tmp_path / "a.png", values, bits, palette=True)
    assert (read_array(file) == values[..., 0]).all()
    colours, _ = open_label(file, colours=True)
    assert (colours == np.concatenate([3 * values % 256, 2 * values % 256, values], -1)).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_two_and_four_bits_is_refused_as_a_label(tmp_path, bits):
    values = numbers(bits, 1)
    file = write_png(tmp_path / "a.png", values, bits)
    assert f"grey of {bits} bits" in refused(read_array, file)
    assert (read_picture(file).numpy() == values[..., 0] * (255 // (2**bits - 1))).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("bands", [2, 4])
def test_labels_that_are_not_opaque_are_refused(tmp_path, bits, bands):
    values = numbers(bits, bands)
    values[2, 3:, -1] = 0
    file = write_png(tmp_path / "a.png", values, bits)
    assert "4 pixels are not opaque" in refused(read_array, file)
    if bits == 8:  # a picture takes what lies beneath
        assert (read_picture(file).numpy() == np.moveaxis(values[..., : max(bands - 1, 1)], -1, 0)).all()


@pytest.mark.parametrize(
    "kind", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.float32], ids=lambda k: k.__name__
)
def test_tiff_labels_of_one_band(tmp_path, kind):
    values = np.array([[[0], [1], [100]], [[7], [3], [2]]], kind)
    if kind in (np.int16, np.int32, np.float32):
        values[0, 0] = -3
    if kind in (np.uint16, np.uint32, np.int32):
        values[0, 1] = 60000
    assert (read_array(write_tiff(tmp_path / "a.tif", values)) == values[..., 0]).all()


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bands", [3, 4])
def test_tiff_labels_and_pictures_of_colours(tmp_path, bands, planar):
    values = numbers(8, bands).astype(np.uint8)
    file = write_tiff(tmp_path / "a.tif", values, extra=(2,) * (bands - 3), planar=planar)
    assert (read_array(file) == values[..., :3]).all()
    assert (read_picture(file).numpy() == np.moveaxis(values[..., :3], -1, 0)).all()


SHAPE = (2, 3)


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.full((*SHAPE, 3), 40000, np.uint16), {}, "3 bands of 16 bits, of which 8"),
        (np.full((*SHAPE, 4), 9, np.uint8), {"extra": (0,)}, "holds 4 bands"),
        (np.full((*SHAPE, 4), 9, np.uint8), {}, "holds 4 bands"),
        (np.full((*SHAPE, 5), 9, np.uint8), {"extra": (0, 0)}, "holds 5 bands"),
        (np.full((*SHAPE, 5), 9, np.uint8), {"extra": (0, 0), "planar": True}, "5 bands"),
        (np.full((*SHAPE, 2), 9, np.uint8), {"extra": (0,)}, "2 bands"),
        (np.full((*SHAPE, 5), 9, np.uint16), {"extra": (0, 0)}, "TIFF of 5 bands of 16-bit whole numbers"),
        (np.full((*SHAPE, 3), 0.5, np.float32), {}, "TIFF of 3 bands of 32-bit floating-point numbers"),
        (np.full((*SHAPE, 1), 0.5, np.float64), {}, "TIFF of 1 band of 64-bit floating-point numbers"),
        (np.full((*SHAPE, 1), -1, np.int8), {}, "signed numbers of 8 bits"),
        (np.full((*SHAPE, 1), 3, np.uint8), {"photometric": 0}, "white is zero"),
        (np.full((*SHAPE, 1), 3, np.uint16), {"photometric": 0}, "white is zero"),
        (np.full((*SHAPE, 1), 2**31 + 5, np.uint32), {}, "above 2147483647"),
        (np.full((*SHAPE, 4), 9, np.uint8), {"photometric": 5}, "stored as CMYK"),
        (np.full((*SHAPE, 1), 1, np.uint8), {"pages": (0, 0, 0)}, "several pages"),
    ],
)
def test_tiff_labels_that_would_lose_something_are_refused(tmp_path, values, options, reason):
    assert reason in refused(read_array, write_tiff(tmp_path / "a.tif", values, **options))


def test_smaller_copies_and_masks_are_no_pages(tmp_path):
    values = np.array([[[4], [2]]], np.uint8)
    assert read_array(write_tiff(tmp_path / "a.tif", values, pages=(0, 1, 4, 5))).tolist() == [[4, 2]]


def test_frames_are_not_dropped(tmp_path):
    grey = Image.fromarray(np.zeros((4, 4), np.uint8))
    other = Image.fromarray(np.full((4, 4), 200, np.uint8))
    for name in ("a.gif", "a.webp"):
        grey.save(tmp_path / name, save_all=True, append_images=[other])
    write_png(tmp_path / "a.png", np.zeros((4, 4, 1), int), 8, frames=2)
    for name in ("a.gif", "a.webp", "a.png"):
        assert "several pages or frames" in refused(read_array, tmp_path / name)
        assert "several pages or frames" in refused(read_picture, tmp_path / name)


def test_grey_maps_of_another_largest_level(tmp_path):
    values = np.array([[0, 7, 4095]])
    assert "scaled" in refused(read_array, write_pgm(tmp_path / "a.pgm", values, 4095))
    assert read_array(write_pgm(tmp_path / "b.pgm", values, 65535)).tolist() == values.tolist()
    assert read_picture(tmp_path / "a.pgm")[0].tolist() == [[0, 0, 255]]


# pictures


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bit_pictures(tmp_path, bands):
    values = numbers(16, bands)
    wanted = np.rint(values[..., :3] / 257 if bands > 2 else np.repeat(values[..., :1] / 257, 3, -1))
    assert (read_picture(write_png(tmp_path / "a.png", values)).numpy() == np.moveaxis(wanted, -1, 0)).all()
    if bands != 2:
        tiff = write_tiff(tmp_path / "a.tif", values.astype(np.uint16), extra=(2,) * (bands == 4))
        assert (np.abs(read_picture(tiff).numpy() - np.moveaxis(wanted, -1, 0)) <= (bands > 1)).all()


@pytest.mark.parametrize("bands", [1, 3])
def test_twelve_bit_numbers_in_sixteen_are_not_black(tmp_path, bands):
    values = RNG.integers(0, 4096, (5, 7, bands)).astype(np.uint16)
    for file in (write_tiff(tmp_path / "a.tif", values), write_png(tmp_path / "a.png", values)):
        assert "all but black; scale its numbers to 0 to 65535" in refused(read_picture, file)
        scaled = (values * (65535 / 4095)).astype(np.uint16)
        write = write_tiff if file.suffix == ".tif" else write_png
        assert (np.abs(read_picture(write(file, scaled)).numpy() - np.moveaxis(values, -1, 0) * (255 / 4095)) < 2).all()


def test_cmyk_pictures_are_converted(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "a.jpg").float().mean((1, 2)).numpy() - [0, 255, 255]).max() < 3
    assert "stored as CMYK" in refused(read_array, tmp_path / "a.jpg")


def test_files_that_nothing_reads_say_what_they_are(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert "is HEIC" in refused(read_picture, tmp_path / "a.jpg")
    np.save(tmp_path / "b.npy", np.zeros((2, 2)))
    assert "is a NumPy array" in refused(read_picture, tmp_path / "b.npy")
    (tmp_path / "c.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    assert "none of JPEG, PNG" in refused(read_picture, tmp_path / "c.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_turned_tiff_is_turned_once(tmp_path, orientation, compression):
    """Pillow turns a TIFF while it loads it, says the turned size before, and maps raw rows by the wrong width."""
    values = RNG.integers(0, 255, (5, 7, 1)).astype(np.uint8)
    file = write_tiff(tmp_path / "a.tif", values, orientation=orientation)
    if compression:
        Image.fromarray(values[..., 0]).save(file, compression=compression, tiffinfo={274: orientation})
    stored = values[..., 0]
    # EXIF 2.32, tag Orientation: where row 0 and column 0 of the stored picture are seen
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).T,
        8: np.rot90(stored),
    }[orientation]
    assert (read_array(file) == upright).all()
    assert (read_picture(file)[0].numpy() == upright).all()
    assert picture_size(file) == upright.shape
    raw, facts = open_label(file, upright=False)
    assert (raw == stored).all()
    assert facts is not None
    assert facts.orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_png_of_sixteen_bit_colours(tmp_path, orientation):
    values = RNG.integers(0, 2**16, (5, 7, 3))
    file = write_png(tmp_path / "a.png", values, orientation=orientation)
    eight = write_png(tmp_path / "b.png", values // 256, 8, orientation=orientation)
    upright = read_array(eight)  # turned by Pillow
    assert (read_array(file) // 256 == upright).all()
    assert np.abs(np.moveaxis(read_picture(file).numpy().astype(int), 0, -1) - upright).max() <= 1
    assert picture_size(file) == upright.shape[:2]
    assert (open_label(file, upright=False)[0] == values).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_tiffs_of_two_and_four_bits_are_refused_as_labels(tmp_path, bits):
    file = write_tiff(tmp_path / "a.tif", np.full((4, 8, 1), 255, np.uint8))
    entry = b"\x02\x01\x03\0\x01\0\0\0"  # BitsPerSample, one short
    raw = file.read_bytes()
    assert raw.count(entry + b"\x08") == 1
    file.write_bytes(raw.replace(entry + b"\x08", entry + bytes([bits])))
    assert f"grey of {bits} bits" in refused(read_array, file)


# lossy labels


def test_lossy_files_are_told_by_what_they_are(tmp_path):
    image = Image.fromarray(RNG.integers(0, 9, (16, 16), np.uint8))
    image.save(tmp_path / "jpeg.png", format="JPEG")
    image.save(tmp_path / "jpeg.tif", compression="jpeg")
    image.convert("RGB").save(tmp_path / "lossy.webp", quality=80)
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.full((16, 16), 200, np.uint8)))
    clear.save(tmp_path / "extended.webp", quality=80)  # VP8X, then ALPH and VP8
    for name in ("jpeg.png", "jpeg.tif", "lossy.webp", "extended.webp"):
        assert "compression; save the label as PNG" in refused(refuse_lossy, tmp_path / name)
    image.convert("RGB").save(tmp_path / "a.webp", lossless=True)
    image.convert("RGB").save(tmp_path / "b.webp", lossless=True, icc_profile=b"a profile of an odd length!")
    image.save(tmp_path / "a.tif", compression="tiff_lzw")
    image.save(tmp_path / "png.jpg", format="PNG")
    (tmp_path / "own.bin").write_bytes(b"a format of a layout's own")
    for name in ("a.webp", "b.webp", "a.tif", "png.jpg", "own.bin", "none.png"):
        refuse_lossy(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jp2", "a.avif"])
def test_formats_that_need_not_keep_numbers_are_no_labels(tmp_path, name):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / name)
    assert "need not keep single numbers" in refused(read_array, tmp_path / name)
    assert not read_picture(tmp_path / name).any()


def test_every_listed_ending_is_read(tmp_path):
    for ending in PICTURE_SUFFIXES:
        grey = Image.fromarray(np.full((16, 16), 100, np.uint8))
        grey.save(tmp_path / f"a{ending}")
        assert abs(float(read_picture(tmp_path / f"a{ending}").float().mean()) - 100) < 3, ending


def test_levels_in_text_are_read_where_none_is_scaled(tmp_path):
    values = RNG.integers(0, 256, (4, 6))
    text = " ".join(map(str, values.ravel()))
    for kind, width, largest in (("P2", 6, 255), ("P2", 6, 65535), ("P3", 2, 255)):
        file = tmp_path / f"{kind}{largest}.pgm"
        file.write_text(f"{kind}\n{width} 4\n{largest}\n{text}\n")
        assert read_array(file).reshape(4, 6).tolist() == values.tolist()
    (tmp_path / "a.pgm").write_text(f"P2\n6 4\n300\n{text}\n")
    assert "scaled" in refused(read_array, tmp_path / "a.pgm")


@pytest.mark.parametrize("kind", ["<U2", "datetime64[s]", "S3", "complex64", [("a", "i4")]])
def test_arrays_of_no_plain_numbers_are_refused(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.zeros((2, 3), kind))
    assert "no plain numbers; save whole numbers" in refused(read_array, tmp_path / "a.npy")


def test_a_label_is_refused_where_a_pixel_is_transparent_by_its_chunk(tmp_path):
    ids = np.array([[0, 1, 2], [2, 2, 1]], np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([10, 20, 30] * 3)
    for name, image, used, unused in (
        ("grey", Image.fromarray(ids), 2, 7),
        ("deep", Image.fromarray(ids.astype(np.uint16) * 300), 600, 2),
        ("colours", Image.fromarray(np.stack([ids, ids, ids * 9], -1)), (2, 2, 18), (2, 2, 2)),
        ("palette", palette, 2, 7),
        ("table", palette, bytes([255, 255, 0]), bytes([255, 255, 255])),
    ):
        for suffix in (".png", ".gif") if name == "palette" else (".png",):
            image.save(tmp_path / f"{name}{suffix}", transparency=used)
            assert "3 pixels are not opaque" in refused(read_array, tmp_path / f"{name}{suffix}")
            image.save(tmp_path / f"{name}{suffix}", transparency=unused)
            assert read_array(tmp_path / f"{name}{suffix}").tolist() == np.asarray(image).tolist()
    palette.save(tmp_path / "p.png", transparency=2)
    with pytest.raises(DataError, match="not opaque"):
        open_label(tmp_path / "p.png", colours=True)
