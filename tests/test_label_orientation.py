"""Labels of turned pictures and packed labels, from the description and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lightning.fabric import Fabric
from PIL import Image, ImageOps

from garnish.cli import main
from garnish.data.check import check
from garnish.data.folder import folder
from garnish.data.joined import join
from garnish.data.labels.choosing import reader_of
from garnish.data.labels.reader import decode
from garnish.data.matched_classes import match_classes
from garnish.data.subset import thinned
from garnish.errors import DataError, OptionError
from garnish.files.orientation import turn
from garnish.targets.unit_vectors import UnitVectors
from garnish.tasks.depth import Depth
from garnish.tasks.semantic import Semantic
from garnish.training.processes import check_data

RNG = np.random.default_rng(0)
ORIENTATIONS = range(1, 9)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def save(path: Path, values: np.ndarray, orientation: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    if orientation == 1:
        Image.fromarray(values).save(path)
    else:
        Image.fromarray(values).save(path, exif=exif(orientation))
    return path


def one_set(root: Path, picture: int, label: int, **options) -> dict:
    """One picture of 6 x 9 whose red channel is its label, each file with an orientation of its own."""
    ids = RNG.integers(0, 3, (6, 9), np.uint8)
    save(root / "images/a.png", np.stack([ids] * 3, -1), picture)
    save(root / "masks/a.png", ids, label)
    task = {"task": "Semantic", "labels": "masks/{name}.png", "classes": 3, **options}
    return {"path": str(root), "images": "images/*", "tasks": {"seg": task}}


# what is turned how


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turns_are_those_of_pillow(orientation):
    pixels = RNG.integers(0, 255, (6, 9, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    assert (turn(pixels, orientation) == np.asarray(ImageOps.exif_transpose(image))).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_normals_turn_as_the_depth_does(orientation):
    """Of a plane of depth z(x, y) the normal is (dz/dx, dz/dy, -1) made a unit vector, however the camera is rolled."""

    def normals(depth: np.ndarray) -> np.ndarray:
        down, right = np.gradient(depth)
        vectors = np.stack([right, down, -np.ones_like(depth)])
        return vectors / np.linalg.norm(vectors, axis=0)

    y, x = np.mgrid[:6, :9]
    depth = 2 + 0.3 * x + 0.1 * y + 0.02 * x * y
    turned = UnitVectors.of(normals(depth), orientation).numpy()
    assert np.allclose(turned, normals(turn(depth, orientation)), atol=1e-6)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_label_is_turned_by_its_own_orientation(tmp_path, orientation):
    sample = folder(one_set(tmp_path, orientation, orientation))[0]
    assert (sample.targets["seg"] == sample.image[0]).all()


@pytest.mark.parametrize("label", [1, 3, 6])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_stored_labels_are_turned_as_the_picture_is(tmp_path, orientation, label):
    sample = folder(one_set(tmp_path, orientation, label, orientation="stored"))[0]
    assert (sample.targets["seg"] == sample.image[0]).all()


def test_stored_arrays_and_normals(tmp_path):
    given = one_set(tmp_path, 6, 1)
    ids = np.asarray(Image.open(tmp_path / "masks/a.png"))
    np.save(tmp_path / "masks/a.npy", ids)
    vectors = np.zeros((6, 9, 3), np.float32)
    vectors[..., 0], vectors[0, 0] = 1, 0  # to the right but in one corner, which has no label
    np.save(tmp_path / "masks/a_normals.npy", vectors)
    given["tasks"]["seg"] |= {"labels": "masks/{name}.npy", "orientation": "stored"}
    given["tasks"]["normals"] = {"task": "Normals", "labels": "masks/{name}_normals.npy", "orientation": "stored"}
    sample = folder(given)[0]
    assert (sample.targets["seg"] == sample.image[0]).all()
    # a quarter turn clockwise: right becomes down, the upper left corner the upper right one
    assert not sample.targets["normals"][:, 0, -1].any()
    assert sample.targets["normals"][:, 1, 1].tolist() == [0, 1, 0]


def test_tasks_that_read_one_file_in_two_ways(tmp_path):
    """The numbers of a shared file are kept for the next task only where it reads them alike."""
    given = one_set(tmp_path, 3, 2, orientation="stored")
    given["tasks"]["shown"] = {**given["tasks"]["seg"], "orientation": "upright"}
    stored = np.asarray(Image.open(tmp_path / "masks/a.png"))
    targets = folder(given)[0].targets
    assert (targets["seg"].numpy() == stored[::-1, ::-1]).all()
    assert (targets["shown"].numpy() == stored[:, ::-1]).all()
    image = Image.fromarray(stored)
    image.putpalette([9, 9, 9, 8, 8, 8, 7, 7, 7])
    image.save(tmp_path / "masks/a.png")
    colours = {"b": [9, 9, 9], "c": [8, 8, 8], "a": [7, 7, 7]}
    task = {"task": "Semantic", "labels": "masks/{name}.png", "classes": ["a", "b", "c"]}
    given["tasks"] = {"ids": task, "seen": {**task, "colours": colours}}
    targets = folder(given)[0].targets
    assert (targets["ids"].numpy() == stored).all()
    assert (targets["seen"].numpy() == (stored + 1) % 3).all()


# what is told


@pytest.mark.parametrize(("picture", "label"), [(3, 1), (1, 3), (3, 2)])
def test_files_of_two_orientations_are_told(tmp_path, picture, label):
    (warning,) = check(folder(one_set(tmp_path, picture, label))).warnings
    assert warning.startswith(f"{tmp_path}/masks/a.png: 1 of 1 labels of seg have another EXIF orientation")
    for stated in ("stored", "upright"):
        assert f"`orientation: {stated}`" in warning
        assert not check(folder(one_set(tmp_path, picture, label, orientation=stated))).warnings


@pytest.mark.parametrize("wrap", [lambda d: join(d), lambda d: thinned(d), lambda d: match_classes(d, d)])
def test_files_behind_other_sets_are_told_too(tmp_path, wrap):
    given = one_set(tmp_path, 3, 1, classes=["a", "b", "c"])
    (warning,) = check(wrap(folder(given))).warnings
    assert warning.startswith(f"{tmp_path}/masks/a.png: 1 of 1 labels of seg have another EXIF orientation")


def test_a_run_warns_before_it_trains(tmp_path):
    data = folder(one_set(tmp_path, 3, 1))
    (warning,) = check_data([data], 8, Fabric(accelerator="cpu", devices=1))
    assert "another EXIF orientation" in warning


@pytest.mark.parametrize("orientation", [1, 3])
def test_files_of_one_orientation_are_not_told(tmp_path, orientation):
    assert not check(folder(one_set(tmp_path, orientation, orientation))).findings


def test_a_quarter_turn_names_a_remedy_that_works(tmp_path):
    (error,) = check(folder(one_set(tmp_path, 6, 1))).errors
    assert "write `orientation: stored` (tasks.seg.orientation) if" in error
    report = check(folder(one_set(tmp_path, 6, 1, orientation="stored")))
    assert not report.findings
    assert "labelled, turned as their pictures are (orientation: stored)" in str(report)


@pytest.mark.parametrize(("picture", "shape"), [(6, (6, 9)), (6, (9, 6))])
def test_a_size_that_differs_names_the_way_that_is_not_set(tmp_path, picture, shape):
    """A picture that is shown as 9 x 6, and a label without EXIF: one way of reading fits, and the other names it."""
    given = one_set(tmp_path, picture, 1)
    save(tmp_path / "masks/a.png", np.arange(54, dtype=np.uint8).reshape(shape) % 3)
    right, wrong = ("stored", "upright") if shape == (6, 9) else ("upright", "stored")
    given["tasks"]["seg"]["orientation"] = wrong
    (error,) = check(folder(given)).errors
    assert f"write `orientation: {right}` (tasks.seg.orientation) if" in error
    given["tasks"]["seg"]["orientation"] = right
    assert not check(folder(given)).errors


def test_a_turned_label_without_exif_is_to_be_turned(tmp_path):
    given = one_set(tmp_path, 1, 1)
    save(tmp_path / "masks/a.png", np.zeros((9, 6), np.uint8))
    for stated in ({}, {"orientation": "stored"}):
        given["tasks"]["seg"] |= stated
        (error,) = check(folder(given)).errors
        assert error.endswith("is 9x6; one of them is turned: turn the label, or replace it")


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: thinned(d)])
def test_where_all_labels_are_in_error_that_is_told_of_turned_pictures_too(tmp_path, wrap):
    given = one_set(tmp_path, 3, 1)
    save(tmp_path / "masks/a.png", np.full((6, 9), 7, np.uint8))
    report = check(wrap(folder(given)))
    assert not report.warnings and len(report.errors) == 1 and "7" in report.errors[0]
    with pytest.raises(DataError, match=r"masks/a\.png: .*7"):
        check_data([wrap(folder(given))], 8, Fabric(accelerator="cpu", devices=1))


def test_orientation_at_the_command_line(tmp_path, capsys):
    file = tmp_path / "data.yaml"
    file.write_text(json.dumps({**one_set(tmp_path, 6, 1), "path": "."}))
    words = ["check", "--data", str(file), "--json"]
    assert main(words) == 1
    capsys.readouterr()
    assert main([*words, "--data.tasks.seg.orientation", "stored"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]["seg"]["orientation"] == "stored"


def test_transparent_pictures_are_told(tmp_path):
    given = one_set(tmp_path, 1, 1)
    pixels = np.zeros((6, 9, 4), np.uint8)
    pixels[..., 3] = 255
    save(tmp_path / "images/a.png", pixels)
    assert not [w for w in check(folder(given)).warnings if "transparent" in w]
    pixels[0, 0, 3] = 0
    save(tmp_path / "images/a.png", pixels)
    (warning,) = [w for w in check(folder(given)).warnings if "transparent" in w]
    assert "images/a.png: 1 of 1 pictures have transparent pixels" in warning


# packed numbers


def packed_set(root: Path, **options) -> tuple[np.ndarray, dict]:
    """CARLA's depth: R + 256 G + 65536 B of 2**24 - 1 is a kilometre."""
    values = RNG.integers(0, 2**24, (6, 9))
    save(root / "images/a.png", np.zeros((6, 9, 3), np.uint8))
    channels = [values & 255, values >> 8 & 255, values >> 16, np.full_like(values, 255)]
    save(root / "depth/a.png", np.stack(channels, -1).astype(np.uint8))
    task = {"task": "Depth", "labels": "depth/{name}.png", "max_metres": 1001, **options}
    return values, {"path": str(root), "images": "images/*", "tasks": {"depth": task}}


def test_packed_depth(tmp_path):
    values, given = packed_set(tmp_path, packed=[1, 256, 65536], scale=1000 / (2**24 - 1))
    read = folder(given)[0].targets["depth"][0].double().numpy()
    assert np.allclose(read, values / (2**24 - 1) * 1000, rtol=1e-6)


def test_packed_depth_at_the_command_line(tmp_path, capsys):
    _, given = packed_set(tmp_path)
    (tmp_path / "data.yaml").write_text(json.dumps({**given, "path": "."}))
    task = "--data.tasks.depth."
    words = ["check", "--data", str(tmp_path / "data.yaml"), f"{task}unit", "mm", f"{task}max_metres", "20000"]
    assert main(words) == 1
    assert "write `packed: [1, 256, 65536]`" in capsys.readouterr().out
    assert main([*words, f"{task}packed", "1,256,65536"]) == 0


def test_packed_depth_with_weights_that_are_not_whole(tmp_path):
    values, given = packed_set(tmp_path, packed=[1 / 65536, 1 / 256, 1], unit="m", max_metres=256)
    assert np.allclose(folder(given)[0].targets["depth"][0].numpy(), values / 65536, rtol=1e-6)


def test_packed_ids_and_their_boundaries(tmp_path):
    ids = np.array([[70000, 70000, 256], [70000, 3, 256]])
    file = save(tmp_path / "x/a.png", np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8))
    given = {"labels": "{name}.png", "packed": [1, 256, 65536], "map": {70000: 1, 256: 0}, "others": 255}
    task = Semantic(classes=2)
    found = decode(np.asarray(Image.open(file)), reader_of(given, task, "set"), file, task)
    assert found.tolist() == [
        [1, 1, 0],
        [1, 255, 0],
    ]


def test_packed_labels_are_never_lossy(tmp_path):
    _, given = packed_set(tmp_path, packed=[1, 256, 65536], unit="mm")
    Image.open(tmp_path / "depth/a.png").convert("RGB").save(tmp_path / "depth/a.png", format="JPEG")
    with pytest.raises(DataError, match="changed by JPEG compression"):
        folder(given)[0]


@pytest.mark.parametrize(("option", "refused"), [({"positive": [1]}, True), ({"threshold": 127}, False)])
def test_ids_of_a_yes_or_no_map_are_never_lossy(tmp_path, option, refused):
    given = one_set(tmp_path, 1, 1)
    Image.open(tmp_path / "masks/a.png").save(tmp_path / "masks/a.png", format="JPEG")
    given["tasks"] = {"s": {"task": "Saliency", "labels": "masks/{name}.png", **option}}
    if not refused:
        assert len(folder(given)[0].targets) == 1
        return
    with pytest.raises(DataError, match="changed by JPEG compression"):
        folder(given)[0]


@pytest.mark.parametrize("bad", [[1, 256], [0, 0, 0], [1, -1, 0], [1, 2, "x"], [1, 2, float("inf")], 3])
def test_bad_weights_are_refused(bad):
    with pytest.raises(OptionError, match=r"set\.packed: expected"):
        reader_of({"labels": "{name}.png", "packed": bad}, Depth(), "set")


def test_an_unknown_orientation_is_refused():
    with pytest.raises(OptionError, match=r"set\.orientation: unknown orientation 'turned'"):
        reader_of({"labels": "{name}.png", "orientation": "turned"}, Depth(), "set")
