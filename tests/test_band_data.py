"""Data sets of any bands: what a description states, what numbers become, and what is counted over them."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torchvision import tv_tensors

from garnish.cli import main
from garnish.data import measured_bands
from garnish.data.augment import Augment, resize_sample
from garnish.data.band_report import BandFacts, odd_bands
from garnish.data.channels import read_channels
from garnish.data.check import check
from garnish.data.dataset import Dataset, Sample, collate, read_sample
from garnish.data.folder import folder
from garnish.data.joined import join
from garnish.data.loader import StepBatches
from garnish.data.measured_bands import band_statistics
from garnish.data.picture_reading import read_image
from garnish.data.subset import Subset
from garnish.errors import DataError, OptionError
from garnish.files.pictures import picture_size, read_picture
from garnish.pictures.band_agreement import bands_differ
from garnish.pictures.band_counts import add_band_counts, count_bands
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import stored_numbers
from garnish.pictures.open_raster import open_raster
from garnish.tasks.semantic import Semantic
from garnish.tiles.streaming import raster_reader

SIZE = (6, 8)
UTM = (10, 0, 500000, 0, -10, 4000000)  # a place on the ground, as rasterio takes it
NAMES = ["blue", "green", "red", "nir"]


def put(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(np.asarray(values)).save(path)
    return path


def described(root: Path, images: object = "{split}/*.npy", **more: object) -> dict:
    tasks = {"seg": {"task": "Semantic", "labels": "{split}/seg/{name}.png", "classes": ["a", "b"]}}
    return {"path": str(root), "images": images, "tasks": tasks, **more}


@pytest.fixture
def fields(tmp_path) -> Path:
    """Three training pictures of four bands of 16 bits, reflectance · 10000, and one of validation."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 3), ("val", 1)):
        for number in range(count):
            put(tmp_path / f"{split}/{split}{number}.npy", rng.integers(0, 10000, (*SIZE, 4), np.uint16))
            put(tmp_path / f"{split}/seg/{split}{number}.png", np.arange(48, dtype=np.uint8).reshape(SIZE) % 2)
    return tmp_path


def stored(root: Path, name: str) -> np.ndarray:
    return np.load(root / f"{name.rstrip('0123456789')}/{name}.npy").astype(np.float64)


def test_numbers_become_what_models_take(fields):
    """(v · scale + offset − low) / (high − low), band by band, and NaN where the file holds the number of no data."""
    values = stored(fields, "train0")
    values[0, 0] = 77
    np.save(fields / "train/train0.npy", values.astype(np.uint16))
    channels = {
        "names": NAMES,
        "scale": 1e-4,
        "offset": [0, 0, 0, -0.1],
        "range": [[0, 0.5], [0, 1], [0, 1], [-0.1, 0.9]],
        "nodata": 77,
    }
    data = folder(described(fields, channels=channels))
    sample = read_sample(data, 0)
    low, high = np.array([0, 0, 0, -0.1]), np.array([0.5, 1, 1, 0.9])
    wanted = (values * 1e-4 + np.array([0, 0, 0, -0.1]) - low) / (high - low)
    wanted[values == 77] = np.nan
    assert sample.image.shape == (4, *SIZE) and sample.image.dtype == torch.float32
    np.testing.assert_allclose(sample.image.numpy(), wanted.transpose(2, 0, 1), rtol=1e-6)
    assert torch.isnan(sample.image[:, 0, 0]).all()
    assert torch.equal(data.image(0).nan_to_num(-1), sample.image.nan_to_num(-1))
    assert data.bands == Bands(
        names=tuple(NAMES), scale=1e-4, offset=(0, 0, 0, -0.1), range=((0, 0.5), (0, 1), (0, 1), (-0.1, 0.9)), nodata=77
    )


def test_a_number_of_bands_and_the_range_of_the_type(fields):
    data = folder(described(fields, channels=4), "val")
    assert data.bands.names == ("band1", "band2", "band3", "band4")
    np.testing.assert_allclose(data[0].image.numpy(), stored(fields, "val0").transpose(2, 0, 1) / 65535, rtol=1e-6)
    assert read_channels({"names": 2, "range": [0, 7]}, "d").names == ("band1", "band2")


@pytest.mark.parametrize(
    "channels, told",
    [
        (True, "channels: True; name the bands, e.g. [blue, green, red, nir]"),
        (0, "channels: 0; pictures have 1 to 1024 bands"),
        (["a", "a", "b", "c"], "give each band a name of its own"),
        ({"names": NAMES, "rnage": [0, 1]}, "rnage"),
        ({"names": NAMES, "range": [1, 0]}, "give the smaller number first"),
        ({"names": NAMES, "scale": 0}, "0 would make all numbers equal"),
        ({"names": NAMES, "range": [[0, 1], [0, 2]]}, "2 pairs for 4 bands"),
    ],
)
def test_channels_that_cannot_be(fields, channels, told):
    with pytest.raises(OptionError, match="channels") as refused:
        folder(described(fields, channels=channels))
    assert told in str(refused.value) and "\n" not in str(refused.value)
    assert str(refused.value).count("channels") <= 2


def test_files_that_do_not_fit_the_channels(fields):
    with pytest.raises(DataError, match=r"train0.npy: 4 bands, but `channels` names 3"):
        folder(described(fields, channels=["red", "nir", "swir"]))[0]
    floats = described(fields, channels=NAMES)
    put(fields / "train/train0.npy", np.zeros((*SIZE, 4), np.float32))
    with pytest.raises(DataError, match=r"holds float32.*state `channels: \{range"):
        folder(floats)[0]
    put(fields / "train/train0.npy", np.full((*SIZE, 4), np.inf, np.float32))
    with pytest.raises(DataError, match=r"train0.npy: holds infinite numbers.*nodata: inf"):
        folder(described(fields, channels={"names": NAMES, "range": [0, 1]}))[0]
    told = folder(described(fields, channels={"names": NAMES, "range": [0, 1], "nodata": math.inf}))[0]
    assert torch.isnan(told.image).all()


def test_arrays_by_name(fields):
    """The arrays of an .npz are those of the channels by name, whatever their order."""
    planes = {name: np.full(SIZE, number, np.uint8) for number, name in enumerate(["nir", "red", "blue", "green"])}
    np.savez(fields / "train/train3.npz", **planes)
    put(fields / "train/seg/train3.png", np.zeros(SIZE, np.uint8))
    data = folder(described(fields, "{split}/*.npz", channels=NAMES))
    np.testing.assert_allclose(data[0].image[:, 0, 0].numpy(), np.array([2, 3, 1, 0]) / 255, rtol=1e-6)


@pytest.mark.parametrize("images", ["{split}/{band}/{name}.png", {n: f"{{split}}/{n}/{{name}}.png" for n in NAMES}])
def test_one_file_a_band(fields, images):
    for number, name in enumerate(NAMES):
        for picture in ("train0", "train1"):
            put(fields / f"train/{name}/{picture}.png", np.full(SIZE, 10 * number + int(picture[-1]), np.uint8))
    data = folder(described(fields, images, channels=NAMES))
    assert len(data) == 2 and [path.parent.name for path in data.picture_files(0)] == NAMES
    np.testing.assert_allclose(data[1].image[:, 0, 0].numpy(), np.array([1, 11, 21, 31]) / 255, rtol=1e-6)
    before = data.key(0)
    put(fields / "train/nir/train0.png", np.zeros((*SIZE, 3), np.uint8))
    assert data.key(0) != before  # every file of a picture counts
    with pytest.raises(DataError, match=r"nir/train0.png"):
        data[0]
    put(fields / "train/nir/train0.png", np.zeros((5, 8), np.uint8))
    with pytest.raises(DataError, match="one size"):
        data[0]
    (fields / "train/nir/train1.png").unlink()
    with pytest.raises(DataError, match=r"picture 'train1': no file .*nir/train1.png of band 'nir'"):
        folder(described(fields, images, channels=NAMES))


def test_files_of_other_types_are_read_each_by_its_own(fields):
    """8 bits of one band and 16 of another: each to the ends of its own type."""
    put(fields / "train/red/train0.npy", np.full(SIZE, 51, np.uint8))
    put(fields / "train/nir/train0.npy", np.full(SIZE, 13107, np.uint16))
    data = folder(described(fields, "{split}/{band}/{name}.npy", channels=["red", "nir"]))
    np.testing.assert_allclose(data[0].image.numpy(), np.full((2, *SIZE), 0.2), rtol=1e-6)


@pytest.mark.parametrize(
    "images, channels, told",
    [
        ("{split}/{name}_{band}.tif", None, "gives a file for each band; state their order by `channels:"),
        ({"red": "r/{name}.tif"}, None, r"state their order by `channels: \[red\]"),
        ({"red": "r/{name}.tif"}, ["red", "nir"], "has no pattern for band 'nir'"),
        ({"red": "r/{name}.tif", "nri": "n/{name}.tif"}, ["red", "nir"], "'nri' is none of `channels`.*nir"),
        ({"red": "r/*.tif", "nir": "n/{name}.tif"}, ["red", "nir"], r"write a pattern with \{name\}"),
        ({"red": "r/{name}.tif", "nir": "n/*/{name}.tif"}, ["red", "nir"], r"write a pattern with \{name\}"),
        ({"red": "r/{name}.tif", "nir": "r/{name}.tif"}, ["red", "nir"], "two bands have one pattern"),
        ({"red": "r/{name}.tif", "nir": "../{name}.tif"}, ["red", "nir"], "without '..'"),
        ("{split}/{band}/{name}.png", ["red", "../../etc"], "without '..'"),
        ("{split}/{band}/{name}.dat", ["red", "nir"], "ends in none of"),
        ({"red": 3, "nir": "n/{name}.tif"}, ["red", "nir"], r"write a pattern with \{name\}"),
    ],
)
def test_patterns_that_name_no_files(fields, images, channels, told):
    more = {} if channels is None else {"channels": channels}
    with pytest.raises(OptionError, match=told):
        folder(described(fields, images, **more))


def test_orientation_as_stored_is_for_ordinary_pictures(fields):
    given = described(fields, channels=4)
    given["tasks"]["seg"]["orientation"] = "stored"
    with pytest.raises(OptionError, match=r"tasks.seg.orientation: 'stored' is for 8-bit RGB"):
        folder(given)


def test_ordinary_pictures_stay_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    put(tmp_path / "train/p0.png", pixels)
    np.save(tmp_path / "train/p1.npy", pixels)
    for name in ("p0", "p1"):
        put(tmp_path / f"train/seg/{name}.png", np.zeros(SIZE, np.uint8))
    plain = folder(described(tmp_path, "{split}/*"))
    assert len(plain) == 1 and plain.bands.is_rgb and plain[0].image.dtype == torch.uint8
    stated = folder(described(tmp_path, "{split}/*", channels=["red", "green", "blue"]))
    assert [s.image.dtype for s in stated] == [torch.uint8] * 2 and torch.equal(stated[0].image, stated[1].image)
    np.save(tmp_path / "train/p1.npy", pixels.astype(np.uint16))
    with pytest.raises(DataError, match=r"p1.npy: uint16 is no 8-bit RGB"):
        stated[1]


def test_keys_know_the_bands(fields):
    def key(**channels: object) -> str | None:
        return folder(described(fields, channels={"names": NAMES, **channels})).key(0)

    keys = {key(), key(range=[0, 10000]), key(scale=2.0), key(nodata=0)}
    keys |= {
        folder(described(fields, channels=list(reversed(NAMES)))).key(0),
        folder(described(fields, channels=4)).key(0),
    }
    assert len(keys) == 6 and key() == key()
    content = folder(described(fields, channels=4)).content(0)
    assert "band1" in content["bands of pictures"] and content["names of pictures"] == "train/train0.npy"


class Made(Dataset):
    """Pictures of one's own."""

    def __init__(self, image: torch.Tensor, bands: Bands) -> None:
        self._image, self._bands = image, bands

    name = "made"
    tasks = {"seg": Semantic(classes=("a", "b"))}  # noqa: RUF012

    @property
    def bands(self) -> Bands:
        return self._bands

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        ids = tv_tensors.Mask(torch.zeros(self._image.shape[-2:], dtype=torch.int64))
        return Sample(tv_tensors.Image(self._image), {"seg": ids}, f"made{index}")


TWO = Bands(names=("red", "nir"), range=(0, 1))


def test_pictures_must_be_of_the_bands_of_their_set():
    read_sample(Made(torch.rand(2, 4, 4), TWO), 0)
    for image, bands in (
        (torch.rand(3, 4, 4), TWO),
        (torch.rand(2, 4, 4).double(), TWO),
        (torch.rand(3, 4, 4), Bands()),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), dataclasses.replace(Bands(), range=(0, 255))),
    ):
        with pytest.raises(DataError, match="made0: its picture is torch"):
            read_sample(Made(image, bands), 0)


def test_batches():
    image = torch.tensor([[[0.5, math.nan]], [[2.0, -1.0]]])
    batch = collate([Made(image, TWO)[0], Made(image, TWO)[1]])
    assert batch.images.shape == (2, 2, 1, 2) and batch.images.dtype == torch.float32
    assert torch.equal(batch.images.nan_to_num(9), image.nan_to_num(9).expand(2, -1, -1, -1))
    with pytest.raises(DataError, match="must have the same bands"):
        collate([Made(image, TWO)[0], Made(torch.zeros(3, 1, 2, dtype=torch.uint8), Bands())[0]])


def holed(size: tuple[int, int] = (9, 12)) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, H, W) with holes of their own in each band, and where they are."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, *size, generator=generator) * 3 - 1
    holes = torch.rand(2, *size, generator=generator) < 0.1
    return image.masked_fill(holes, math.nan), holes


@pytest.mark.parametrize("size", [(9, 12), (5, 6), (18, 24), (7, 20), (1, 1)])
def test_no_data_travels_through_resizing(size):
    """A pixel has data if what it is made of has: where any hole has a weight, and only there, it is NaN."""
    image, holes = holed()
    out = resize_sample(Made(image, TWO)[0], size).image
    weighed = resize_sample(Made(holes.float(), TWO)[0], size).image  # the weight of the holes in every pixel
    filled = resize_sample(Made(image.nan_to_num(0), TWO)[0], size).image
    assert out.dtype == torch.float32 and out.shape == (2, *size)
    assert torch.isnan(out)[weighed > 1e-6].all()
    kept = ~torch.isnan(out)
    torch.testing.assert_close(out[kept], filled[kept])
    if size == (9, 12):
        assert torch.equal(torch.isnan(out), holes)


def test_what_lies_outside_has_no_data():
    """Crops that reach over the border and rotations: inside the numbers of the picture, outside NaN, never 0."""
    image = torch.rand(2, 16, 16) + 1  # never below 1, so a border that was filled with 0 would show
    sample = Made(image, TWO)[0]
    small = Augment(size=(16, 16), scale=(0.5, 0.5), flip=0)(sample, (1,))
    inside = small.targets["seg"] != 255
    assert inside.sum() == 64 and torch.equal(~torch.isnan(small.image), inside.expand(2, -1, -1))
    turned = Augment(scale=(1.0, 1.0), flip=0, rotate_degrees=40)(sample, (3,))
    assert torch.isnan(turned.image[:, 0, 0]).all() and not torch.isnan(turned.image[:, 8, 8]).any()
    assert turned.image[~torch.isnan(turned.image)].min() >= 1 - 1e-3
    flipped = Augment(scale=(1.0, 1.0), flip=1)(Made(holed()[0], TWO)[0], (0,))
    assert torch.equal(flipped.image.nan_to_num(9), holed()[0].flip(-1).nan_to_num(9))


def test_colour_is_for_ordinary_pictures(fields):
    change = Augment(colour=0.2)
    with pytest.raises(OptionError, match=r"made0: augment.colour 0.2 changes brightness"):
        change(Made(torch.rand(2, 4, 4), TWO)[0], (0,))
    with pytest.raises(OptionError, match=r"\(train\): augment.colour 0.2 .* set it to 0"):
        StepBatches(folder(described(fields, channels=4)), 2, augment=change)
    batch = StepBatches(folder(described(fields, channels=4)), 2, augment=Augment(size=(4, 4))).batch_at(0)
    assert batch.images.shape == (2, 4, 4, 4)


def test_only_equal_bands_are_joined(fields):
    def given(**channels: object):
        return folder(described(fields, channels={"names": NAMES, **channels}))

    assert join(given(range=[0, 1]), given(range=[[0, 1]] * 4, nodata=5)).bands.names == tuple(NAMES)
    with pytest.raises(
        OptionError, match=r"join: .*the first set reads range \[0.0, 1.0\], set 2 range \[0.0, 10000.0\]"
    ):
        join(given(range=[0, 1]), given(range=[0, 10000]))
    with pytest.raises(OptionError, match="set 2 bands band1, band2, band3, band4; give both the same bands"):
        join(given(), folder(described(fields, channels=4)))
    assert bands_differ(Bands(), Bands(range=(0, 255)), "one", "other").startswith("one reads 8-bit RGB, other range")
    assert Subset(given(range=[0, 7]), [0]).bands.range == (0, 7)


# ---- what is counted --------------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_pixels(fields):
    """NumPy on all pixels at once, in float64, without those that hold the number of no data."""
    values = np.concatenate([stored(fields, f"train{n}").reshape(-1, 4) for n in range(3)])
    mark = values[5, 2]
    data = folder(described(fields, channels={"names": NAMES, "range": [0, 10000], "nodata": float(mark)}))
    values = np.where(values == mark, np.nan, values / 10000)
    found = band_statistics(data)
    np.testing.assert_allclose(found.mean, np.nanmean(values, 0), rtol=1e-6)
    np.testing.assert_allclose(found.std, np.nanstd(values, 0), rtol=1e-6)
    np.testing.assert_allclose(found.minimum, np.nanmin(values, 0), rtol=1e-6)
    np.testing.assert_allclose(found.maximum, np.nanmax(values, 0), rtol=1e-6)
    np.testing.assert_allclose(found.missing, np.isnan(values).mean(0))
    turned = band_statistics(Subset(data, [2, 0, 1]))
    np.testing.assert_allclose(turned.mean, found.mean, rtol=1e-12)
    np.testing.assert_allclose(turned.std, found.std, rtol=1e-12)


def test_counting_is_exact_far_from_zero():
    """A large mean and a small spread, where a sum of squares in float64 would keep no digit of the spread."""
    parts = [1e8 + np.random.default_rng(n).normal(size=(1, 5, 7)) * 1e-2 for n in range(4)]
    counts = count_bands(parts[0])
    for part in parts[1:]:
        counts = add_band_counts(counts, count_bands(part))
    whole = np.concatenate(parts).ravel() - 1e8
    assert counts.std[0] == pytest.approx(whole.std(), rel=1e-5)
    assert counts.mean[0] - 1e8 == pytest.approx(whole.mean(), abs=1e-7)


def test_a_huge_set_is_sampled_by_a_rule(monkeypatch):
    class Levels(Made):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Sample:
            grid = torch.arange(64.0).view(8, 8) + 1000 * index
            return Sample(tv_tensors.Image(torch.stack([grid, -grid])), {}, f"{index}")

    monkeypatch.setattr(measured_bands, "MOST_PICTURES", 3)
    monkeypatch.setattr(measured_bands, "MOST_PIXELS", 16)
    found = band_statistics(Levels(torch.zeros(2, 8, 8), TWO))
    grid = np.arange(64.0).reshape(8, 8)[::2, ::2]
    wanted = np.stack([grid + 1000 * index for index in (0, 4, 8)])
    assert found.mean == pytest.approx((wanted.mean(), -wanted.mean())) and found.std[0] == pytest.approx(wanted.std())


@pytest.mark.parametrize("level, told", [(math.nan, "band 'nir' has no pixel with data"), (0.5, "one number only")])
def test_bands_that_tell_nothing(level, told):
    image = torch.rand(2, 4, 4)
    image[1] = level
    with pytest.raises(DataError, match=told):
        band_statistics(Made(image, TWO))


def test_check_prints_the_bands(fields, capsys):
    from garnish.backbones.build import backbone

    values = stored(fields, "train1")
    values[..., 3] = 7
    values[:2, :, 0] = 65535
    for number in range(3):
        np.save(fields / f"train/train{number}.npy", values.astype(np.uint16))
    channels = {"names": NAMES, "range": [[0, 10000], [0, 10000], [0, 1000000], [0, 10000]], "nodata": 0}
    trunk = backbone(
        "mit_b0", options={"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
    )
    report = check(folder(described(fields, channels=channels)), trunk=trunk)
    blue = report.bands["blue"]
    assert (
        blue.maximum == pytest.approx(6.5535) and blue.far == pytest.approx(1 / 3) and blue.expected == (0.406, 0.225)
    )
    assert report.bands["nir"].expected is None and report.bands["nir"].std == 0
    told = [line.split(": ", 1)[1].split(": ", 1)[0] for line in report.warnings if "band " in line]
    lines = "\n".join(report.warnings)
    assert "band blue: 33.33% of its pixels lie more than a whole range outside 0 … 1" in lines and len(told) == 3
    assert "band nir: every pixel is 0.0007" in lines and "band red: mean 0.00" in lines and "mean 0.485" in lines
    text = str(report)
    assert "0 … 1, mean 0.406, spread 0.225" in text and "no data" in text

    file = fields / "data.yaml"
    file.write_text(json.dumps(described(fields, channels=channels)))
    assert main(["check", "--data", str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["bands"]["blue"]["maximum"] == pytest.approx(6.5535)
    assert printed["bands"]["red"]["expected"] is None
    assert main(["check", "--data", str(file), "--backbone", "mit_b0"]) == 0
    assert "trunk expects" in capsys.readouterr().out


def test_check_of_bands_without_data(fields):
    channels = {"names": NAMES, "range": [0, 1], "nodata": 3}
    for number in range(3):
        np.save(fields / f"train/train{number}.npy", np.full((*SIZE, 4), 3, np.uint8))
    report = check(folder(described(fields, channels=channels)))
    assert report.bands["red"].missing == 1 and math.isnan(report.bands["red"].mean)
    assert sum("no pixel has data" in line for line in report.warnings) == 4 and not report.errors


def test_check_tells_of_pictures_of_other_depths_where_no_range_is_stated(fields):
    put(fields / "train/train1.npy", np.full((*SIZE, 4), 200, np.uint8))
    files = f"{fields / 'train/train1.npy'}: holds uint8, {fields / 'train/train0.npy'} uint16, and each is read"
    told = [line for line in check(folder(described(fields, channels=NAMES))).warnings if "own type" in line]
    assert len(told) == 1 and told[0].startswith(files)
    stated = described(fields, channels={"names": NAMES, "range": [0, 10000]})
    assert not [line for line in check(folder(stated)).warnings if "own type" in line]


def test_check_reports_files_that_cannot_be_read(fields):
    np.save(fields / "train/train1.npy", np.zeros((*SIZE, 3), np.uint16))
    report = check(folder(described(fields, channels=4)))
    assert len(report.errors) == 1 and "train1.npy: 3 bands" in report.errors[0] and report.bands


@pytest.mark.parametrize("kind, count", [(np.uint16, 5), (np.float32, 2), (np.uint8, 4)])
def test_a_folder_of_arrays_is_told_what_to_write(tmp_path, kind, count):
    np.save(put(tmp_path / "images/train/a.npy", np.zeros((*SIZE, count), kind)), np.zeros((*SIZE, count), kind))
    put(tmp_path / "masks/train/a.png", np.arange(48, dtype=np.uint8).reshape(SIZE) % 2)
    with pytest.raises(DataError, match=r"a.npy is no 8-bit RGB.*save this as") as refused:
        folder(tmp_path)
    written = str(refused.value).split("give that file: ")[1]
    assert f"channels: {{names: {count}" in written
    (tmp_path / "data.yaml").write_text(written)
    assert len(folder(tmp_path).bands.names) == count
    assert folder(tmp_path)[0].image.shape == (count, *SIZE)


def test_a_mark_that_the_type_cannot_hold_marks_nothing(fields):
    """-9999 is no number of uint16, and 55537, which its bits would be, is one."""
    np.save(fields / "train/train0.npy", np.full((*SIZE, 4), 55537, np.uint16))
    image = folder(described(fields, channels={"names": NAMES, "nodata": -9999}))[0].image
    np.testing.assert_allclose(image.numpy(), np.full((4, *SIZE), 55537 / 65535), rtol=1e-6)


def test_what_geotiffs_say_is_taken_or_told(fields):
    """Their number of no data is taken where `channels` name none; scale and offset are told, not applied."""
    rasterio = pytest.importorskip("rasterio")
    values = np.arange(2 * 48, dtype=np.uint16).reshape(2, *SIZE)
    file = fields / "train/geo.tif"
    with rasterio.open(
        file, "w", driver="GTiff", height=6, width=8, count=2, dtype="uint16", nodata=5, transform=rasterio.Affine(*UTM)
    ) as writer:
        writer.write(values)
        writer.scales, writer.offsets = (0.5, 0.5), (1.0, 1.0)
    put(fields / "train/seg/geo.png", np.arange(48, dtype=np.uint8).reshape(SIZE) % 2)

    def given(**channels: object):
        return folder(described(fields, "{split}/*.tif", channels={"names": ["a", "b"], "range": [0, 100], **channels}))

    wanted = np.where(values == 5, np.nan, values / 100)
    np.testing.assert_allclose(given()[0].image.numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(given(nodata=7)[0].image.numpy(), np.where(values == 7, np.nan, values / 100), rtol=1e-6)
    assert any("geo.tif: says scale 0.5 0.5 and offset 1" in line for line in check(given()).warnings)
    assert not any("not applied" in line for line in check(given(scale=0.5, offset=1.0)).warnings)


def test_a_file_that_names_its_bands_otherwise_is_refused(fields):
    rasterio = pytest.importorskip("rasterio")
    file = fields / "train/geo.tif"
    with rasterio.open(
        file, "w", driver="GTiff", height=6, width=8, count=2, dtype="uint8", transform=rasterio.Affine(*UTM)
    ) as writer:
        writer.write(np.zeros((2, *SIZE), np.uint8))
        writer.descriptions = ("red", "nir")
    put(fields / "train/seg/geo.png", np.zeros(SIZE, np.uint8))
    assert folder(described(fields, "{split}/*.tif", channels=["red", "nir"]))[0].image.shape == (2, *SIZE)
    with pytest.raises(DataError, match=r"geo.tif: calls a band 'red' that `channels` call 'nir'"):
        folder(described(fields, "{split}/*.tif", channels=["nir", "red"]))[0]


def test_colours_that_are_called_otherwise_are_told():
    counts = BandFacts(minimum=0, maximum=1, mean=0.5, std=0.2, missing=0, far=0)
    named = dict.fromkeys(("Blue", "Green", "Red", "nir"), counts)
    (line,) = odd_bands(named, plain=False, has_trunk=True)
    assert line.startswith("no band is called red, green or blue") and line.endswith("write 'Blue' as 'blue'")
    assert not list(odd_bands(named, plain=False))
    assert not list(odd_bands(named | {"red": replace(counts, expected=(0.4, 0.2))}, plain=False, has_trunk=True))


def test_a_tiff_of_many_bands_without_channels_is_told_of_them(tmp_path, capfd):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 9, 10), np.uint16), planarconfig="contig")
    with pytest.raises(DataError, match=r"10 bands of 16-bit whole numbers.* `channels` .*or save RGB of 8 bits"):
        read_picture(tmp_path / "a.tif")
    assert not any(capfd.readouterr())  # Pillow has a line of its own, without the file


def geotiff(file: Path, names: list[str], levels: list[int], **options: object) -> Path:
    """One level a band, which GDAL names."""
    rasterio = pytest.importorskip("rasterio")
    place = {"transform": rasterio.Affine(*UTM), "count": len(names), "height": 6, "width": 8}
    with rasterio.open(file, "w", driver="GTiff", dtype="uint8", **place, **options) as writer:
        writer.write(np.broadcast_to(np.array(levels, np.uint8)[:, None, None], (len(names), *SIZE)))
        writer.descriptions = names
    return file


def test_capitals_do_not_hide_that_bands_lie_elsewhere(fields):
    geotiff(fields / "train/geo.tif", ["Blue", "Green", "Red", "NIR"], [10, 20, 30, 40])
    put(fields / "train/seg/geo.png", np.zeros(SIZE, np.uint8))
    image = folder(described(fields, "{split}/*.tif", channels=NAMES))[0].image
    assert (image[:, 0, 0] * 255).round().tolist() == [10, 20, 30, 40]
    with pytest.raises(DataError, match=r"geo.tif: calls a band 'Blue' that `channels` call 'red'"):
        folder(described(fields, "{split}/*.tif", channels=["red", "green", "blue", "nir"]))[0]
    with pytest.raises(DataError, match=r"geo.tif: calls a band 'Blue' that the model calls 'red'"):
        stored_numbers(fields / "train/geo.tif", Bands(names=("red", "green", "blue", "nir")), "x")


@pytest.mark.parametrize("tiles", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_an_ordinary_picture_that_names_its_colours_in_another_order_is_not_read_as_rgb(tmp_path, tiles):
    right = geotiff(tmp_path / "rgb.tif", ["Red", "green", "B2"], [10, 20, 30], photometric="RGB", **tiles)
    assert read_picture(right)[0, 0].tolist() == [10, 20, 30]
    wrong = geotiff(tmp_path / "bgr.tif", ["blue", "green", "red"], [10, 20, 30], photometric="RGB", **tiles)
    for read in (read_picture, picture_size):
        with pytest.raises(
            DataError, match=r"bgr\.tif: calls a band 'blue' that would be read as red; save red, green"
        ):
            read(wrong)
    with open_raster(wrong) as raster, pytest.raises(DataError, match="would be read as red"):
        raster_reader(raster, Bands(), wrong)
    image, _ = read_image([wrong], Bands(names=("blue", "green", "red")))
    assert (image[:, 0, 0] * 255).round().tolist() == [10, 20, 30]


def test_a_file_of_one_band_is_of_the_band_that_it_names(tmp_path):
    files = [geotiff(tmp_path / f"{name}.tif", [name], [10]) for name in ("Blue", "B3", "Red")]
    bands = Bands(names=("blue", "green", "red"), range=(0, 255))
    assert read_image(files, bands)[0].shape == (3, *SIZE)
    with pytest.raises(DataError, match=r"Red\.tif: calls a band 'Red' that `channels` call 'blue'"):
        read_image(files[::-1], bands)
