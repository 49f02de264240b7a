"""Label files of every kind against targets written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from garnish.data.labels.choosing import reader_of
from garnish.data.labels.reader import decode
from garnish.errors import DataError, OptionError
from garnish.files import label_files, pictures
from garnish.files.label_files import read_array
from garnish.files.pictures import picture_size
from garnish.tasks.depth import Depth
from garnish.tasks.edges import Edges
from garnish.tasks.normals import Normals
from garnish.tasks.saliency import Saliency
from garnish.tasks.semantic import Semantic
from picture_files import read_picture

SEG = Semantic(classes=("sky", "road", "car"))


def read(path, task, **given):
    given = {"labels": "{name}.png", **{k.rstrip("_"): v for k, v in given.items()}}
    return decode(read_array(path), reader_of(given, task, "set.yaml: tasks.t"), path, task)


def save(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def u8(*rows):
    return np.array(rows, np.uint8)


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ids


def test_grey_ids(tmp_path):
    file = save(tmp_path / "a.png", u8([0, 1, 2], [2, 255, 0]))
    target = read(file, SEG)
    assert target.dtype == np.int64
    assert target.tolist() == [[0, 1, 2], [2, 255, 0]]


def test_palette_pictures_give_indices_not_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.putpixel((0, 0), 2)
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    assert read(tmp_path / "a.png", SEG).tolist() == [[2, 1]]


def test_sixteen_bit_ids_with_a_map(tmp_path):
    file = save(tmp_path / "a.png", np.array([[7000, 8000, 9]], np.uint16))
    assert read(file, SEG, map={7000: 1, 8000: 2, 9: 255}).tolist() == [[1, 2, 255]]
    assert read(file, SEG, map={7000: 1, 8000: 2}, others=0).tolist() == [[1, 2, 0]]
    with pytest.raises(DataError, match=r"a\.png: 1 pixels have id 9, which `map` does not list"):
        read(file, SEG, map={7000: 1, 8000: 2})


def test_one_channel_saved_as_rgb(tmp_path):
    file = save(tmp_path / "a.png", np.repeat(u8([0, 2])[..., None], 3, -1))
    assert read(file, SEG).tolist() == [[0, 2]]


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (2, 2, 1)])
def test_npy_ids(tmp_path, shape):
    file = save(tmp_path / "a.npy", np.array([0, 1, 2, -1], np.float32).reshape(shape))
    assert read(file, SEG, ignore=-1).tolist() == [[0, 1], [2, 255]]
    with pytest.raises(DataError, match=r"id -1; write `ignore: -1`"):
        read(file, SEG)


def test_offset_reduces_the_zero_label_once(tmp_path):
    file = save(tmp_path / "a.png", u8([0, 1, 3, 255]))
    assert read(file, SEG, offset=-1).tolist() == [[255, 0, 2, 255]]


def test_ignore_is_raw_and_comes_before_map(tmp_path):
    file = save(tmp_path / "a.png", u8([0, 11, 12, 255]))
    assert read(file, SEG, ignore=[11, 12]).tolist() == [[0, 255, 255, 255]]
    assert read(file, SEG, ignore=11, map={0: 2, 12: 1}).tolist() == [[2, 255, 1, 255]]
    assert read(file, SEG, map={0: 0, 255: 1}, others="same").tolist() == [[0, 11, 12, 1]]


@pytest.mark.parametrize("values", [[[0.5, 1.0]], [[np.nan, 1.0]]])
def test_ids_are_whole(tmp_path, values):
    file = save(tmp_path / "a.npy", np.array(values, np.float32))
    with pytest.raises(DataError, match="whole") as error:
        read(file, SEG)
    assert str(file) in one_line(error)


def test_ids_in_a_jpeg_are_refused(tmp_path):
    file = save(tmp_path / "a.jpg", np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match="compression; save the label as PNG"):
        read(file, SEG)


# colours

COLOURS = {"sky": [0, 0, 255], "road": [[90, 90, 90], [91, 90, 90]], "car": [255, 0, 0], "ignore": [0, 0, 0]}


def test_colours(tmp_path):
    file = save(tmp_path / "a.png", u8([[255, 0, 0], [0, 0, 255]], [[91, 90, 90], [0, 0, 0]]))
    assert read(file, SEG, colours=COLOURS).tolist() == [[2, 0], [1, 255]]


def test_unknown_colour(tmp_path):
    file = save(tmp_path / "a.png", u8([[255, 0, 0], [1, 2, 3], [1, 2, 3]]))
    with pytest.raises(DataError, match=r"2 pixels have the colour \[1, 2, 3\]"):
        read(file, SEG, colours=COLOURS)
    assert read(file, SEG, colours=COLOURS, others=255).tolist() == [[2, 255, 255]]
    with pytest.raises(DataError, match="holds colours"):
        read(file, SEG)


# yes-or-no maps


@pytest.mark.parametrize(
    ("values", "options", "wanted"),
    [
        ([0, 1, 1], {}, [0, 1, 1]),
        ([0, 255, 0], {}, [0, 1, 0]),
        ([0, 1, 255], {"ignore": 255}, [0, 1, 255]),
        ([0, 127, 128], {"threshold": 127}, [0, 0, 1]),
        ([0, 5, 6], {"positive": [6, 2]}, [0, 0, 1]),
        ([0, 6, 255], {"positive": 6}, [0, 1, 255]),
        ([0, 6, 255], {"positive": [6, 255]}, [0, 1, 1]),
    ],
)
def test_binary(tmp_path, values, options, wanted):
    target = read(save(tmp_path / "a.png", u8(values)), Saliency(), **options)
    assert target.dtype == np.float32
    assert target.tolist() == [[wanted]]


def test_one_bit_pictures(tmp_path):
    Image.fromarray(u8([0, 255])).convert("1").save(tmp_path / "a.png")
    assert read(tmp_path / "a.png", Edges()).tolist() == [[[0, 1]]]


@pytest.mark.parametrize(("values", "remedy"), [([0, 1, 255], "ignore: 255"), ([0, 40, 200], "threshold: 127")])
def test_binary_that_needs_a_word(tmp_path, values, remedy):
    with pytest.raises(DataError, match=remedy):
        read(save(tmp_path / "a.png", u8(values)), Edges())


def test_boundaries_are_two_pixels_wide(tmp_path):
    file = save(tmp_path / "a.png", u8([1, 1, 2, 2, 2], [1, 1, 2, 2, 2]))
    assert read(file, Edges(), from_="boundaries").tolist() == [[[0, 1, 1, 0, 0]] * 2]


def test_boundaries_beside_ignored_pixels_are_not_known(tmp_path):
    file = save(tmp_path / "a.png", u8([1, 1, 255, 2, 2, 3]))
    assert read(file, Edges(), from_="boundaries").tolist() == [[[0, 255, 255, 255, 1, 1]]]


def test_boundaries_against_morphology(tmp_path):
    ids = np.random.default_rng(0).integers(0, 4, (12, 15), np.uint8).repeat(3, 0).repeat(3, 1)
    cross = ndimage.generate_binary_structure(2, 1)
    wanted = ndimage.maximum_filter(ids, footprint=cross) != ndimage.minimum_filter(ids, footprint=cross)
    target = read(save(tmp_path / "a.png", ids), Edges(), from_="boundaries")
    assert (target[0] == wanted).all()


# depth


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"unit": "mm"}, 1.5), ({"unit": "cm"}, 15.0), ({"unit": "m"}, 1500.0), ({"scale": 1 / 256}, 1500 / 256)],
)
def test_sixteen_bit_depth(tmp_path, options, wanted):
    file = save(tmp_path / "a.png", np.array([[1500, 0]], np.uint16))
    target = read(file, Depth(), **options)
    assert target.dtype == np.float32
    assert target.shape == (1, 1, 2)
    assert target[0, 0].tolist() == pytest.approx([wanted, 0.0], rel=1e-6)


def test_whole_number_depth_needs_a_unit(tmp_path):
    with pytest.raises(DataError, match=r"no unit; write `unit: mm`"):
        read(save(tmp_path / "a.png", np.array([[1500]], np.uint16)), Depth())


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_float_depth_is_in_metres(tmp_path, suffix):
    file = save(tmp_path / f"a{suffix}", np.array([[1.5, -2.0, 10.0]], np.float32))
    assert read(file, Depth(), invalid=10).tolist() == [[[1.5, 0.0, 0.0]]]


def test_nan_depth(tmp_path):
    file = save(tmp_path / "a.npy", np.array([[1.5, np.nan, np.nan, np.inf]], np.float32))
    with pytest.raises(DataError, match=r"a\.npy: 2 of 4 depths are NAN; write `invalid: nan`") as error:
        read(file, Depth())
    one_line(error)
    assert read(file, Depth(), invalid=["nan", float("inf")]).tolist() == [[[1.5, 0, 0, 0]]]


# normals


def test_normals_from_rgb(tmp_path):
    file = save(tmp_path / "a.png", u8([[255, 128, 128], [128, 128, 0], [0, 0, 0], [127, 128, 127]]))
    target = read(file, Normals())
    assert target.shape == (3, 1, 4)
    raw = np.array([255, 128, 128]) * 2 / 255 - 1
    assert target[:, 0, 0] == pytest.approx(raw / np.linalg.norm(raw), abs=1e-6)
    assert target[2, 0, 1] < -0.99
    assert not target[:, 0, 2:].any()  # black and mid-grey are no direction


@pytest.mark.parametrize("options", [{"flip": ["y", "z"]}, {"axes": "x right, y up, z backward"}])
@pytest.mark.parametrize("last", [True, False])
def test_normals_turned_to_our_axes(tmp_path, options, last):
    vectors = np.array([[[0.0, 0.6, 0.8], [0.0, 0.0, 0.0]]], np.float32)
    file = save(tmp_path / "a.npy", vectors if last else np.moveaxis(vectors, -1, 0))
    target = read(file, Normals(), **options)
    assert np.allclose(target[:, 0, 0], [0.0, -0.6, -0.8])
    assert not target[:, 0, 1].any()
    assert not np.signbit(target[:, 0, 1]).any()


def test_bad_normals(tmp_path):
    with pytest.raises(DataError, match="three channels"):
        read(save(tmp_path / "a.png", u8([0, 1])), Normals())
    with pytest.raises(DataError, match=r"component 127"):
        read(save(tmp_path / "b.npy", np.full((2, 2, 3), 127.0)), Normals())
    with pytest.raises(DataError, match="NaN"):
        read(save(tmp_path / "c.npy", np.full((2, 2, 3), np.nan)), Normals())


# options


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (SEG, {"unit": "mm"}, r"tasks\.t\.unit: does not apply to labels of kind ids"),
        (Depth(), {"threshold": 3}, r"threshold: does not apply to labels of kind depth"),
        (Depth(), {"unit": "feet"}, r"unknown unit 'feet'; available: m, cm, mm"),
        (Depth(), {"unit": "mm", "scale": 2}, "keep one"),
        (Depth(), {"scale": 0}, "from 1e-12 to"),
        (SEG, {"kind": "palete"}, "unknown kind 'palete'"),
        (SEG, {"kind": "depth"}, "does not fit Semantic"),
        (SEG, {"ignore": "void"}, "expected a whole number, got 'void'"),
        (SEG, {"map": {0: 300}}, r"map\.0: expected a whole number from 0 to 255, got 300"),
        (SEG, {"colours": {"sea": [0, 0, 1]}}, "unknown class 'sea'"),
        (SEG, {"colours": {"sky": [0, 0, 1], "car": [0, 0, 1]}}, "two classes"),
        (SEG, {"labels": "mask.png"}, r"no \{name\}"),
        (SEG, {"others": 3}, "needs 'map'"),
        (Normals(), {"flip": "w"}, "x, y, z"),
        (Normals(), {"axes": "z up"}, "expected the form"),
        (Edges(), {"from_": "colors"}, "available: boundaries"),
        (Edges(), {"threshold": 1, "positive": 2}, "keep one"),
    ],
)
def test_refused_options(tmp_path, task, options, message):
    with pytest.raises(OptionError, match=message) as error:
        read(save(tmp_path / "a.png", u8([0])), task, **options)
    assert one_line(error).startswith("set.yaml: tasks.t")


# pictures


def test_pictures_become_rgb(tmp_path):
    grey = u8([0, 100, 255])
    save(tmp_path / "grey.png", grey)
    save(tmp_path / "deep.png", grey.astype(np.uint16) * 257)
    save(tmp_path / "float.tif", grey.astype(np.float32) / 255)
    save(tmp_path / "alpha.png", np.stack([grey, grey, grey, u8([255, 9, 0])], -1))
    for name in ("grey.png", "deep.png", "float.tif", "alpha.png"):
        picture = read_picture(tmp_path / name)
        assert picture.dtype == torch.uint8
        assert picture.tolist() == [grey.tolist()] * 3, name


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    image.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    image.save(tmp_path / "a.jpg", exif=exif)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.shape == (3, 30, 20)
    assert picture_size(tmp_path / "a.jpg") == (30, 20)
    assert picture[0, 2, -3] > 200  # the red corner went from top left to top right
    assert picture[0, 2, 2] < 50


def test_damaged_pictures(tmp_path):
    whole = save(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    whole.write_bytes(whole.read_bytes()[:900])
    (tmp_path / "b.png").write_bytes(b"not a picture")
    (tmp_path / "c.png").write_bytes(b"")
    for name in ("a.jpg", "b.png", "c.png"):
        with pytest.raises(DataError, match=rf"{name}: damaged or not a picture \(.*replace the file") as error:
            read_picture(tmp_path / name)
        one_line(error)
    with pytest.raises(DataError, match="no such file"):
        read_picture(tmp_path / "d.png")


def test_large_pictures_are_refused_by_their_header(tmp_path, monkeypatch):
    for module in (pictures, label_files):
        monkeypatch.setattr(module, "MAX_PIXELS", 1_000_000)
    file = save(tmp_path / "a.png", np.zeros((1001, 1000), np.uint8))
    for read_file in (read_picture, read_array, picture_size):
        with pytest.raises(DataError, match=r"1000x1001 is 1 megapixels"):
            read_file(file)
    with pytest.raises(DataError, match="3,001,000 numbers"):
        read_array(save(tmp_path / "a.npy", np.zeros((3001, 1000), np.uint8)))


def test_npy_files_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:40])
    np.savez(tmp_path / "c.npz", np.zeros(3))
    (tmp_path / "c.npz").rename(tmp_path / "c.npy")
    for name in "abc":
        with pytest.raises(DataError, match=r"not a readable \.npy array") as error:
            read_array(tmp_path / f"{name}.npy")
        one_line(error)
