"""Checks across pictures and tasks, on pictures of planes and rectangles made by formulas, at odd sizes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from garnish.doctor import alike
from garnish.doctor.checks.normals_depth import _FRAMES, _agreement, _cosines
from garnish.doctor.examine import examine
from garnish.doctor.fits import REACH, movement

SIZE = (97, 131)
COUNT = 12


def rectangles(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, ids and depth in mm of seven rectangles on a ground, each of another level, class and depth."""
    draw = np.random.default_rng(number)
    ids, depth = np.zeros(SIZE, np.uint8), np.full(SIZE, 6000, np.uint16)
    levels = np.full(SIZE, 90.0)
    for k in range(7):
        y, x = draw.integers(0, SIZE[0] - 20), draw.integers(0, SIZE[1] - 20)
        place = np.s_[y : y + draw.integers(14, 40), x : x + draw.integers(14, 40)]
        ids[place], depth[place], levels[place] = 1 + k % 3, 5500 - 600 * k, draw.uniform(0, 255)
    pixels = levels[..., None] + draw.normal(0, 8, (*SIZE, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), ids, depth


def put(root, folder, split, name, values):
    file = root / folder / split / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)
    return file


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("rectangles")
    for k in range(COUNT):
        pixels, ids, depth = rectangles(k)
        for folder, values in (("images", pixels), ("seg", ids), ("depth", depth)):
            put(root, folder, "val" if k > 8 else "train", f"p{k:02d}", values)
    return root


@pytest.fixture
def root(clean, tmp_path):
    shutil.copytree(clean, tmp_path / "set")
    return tmp_path / "set"


def told(root, *checks):
    given = {
        "images": "images/{split}/*.png",
        "splits": {"train": "train", "val": "val"},
        "tasks": {
            "seg": {"task": "Semantic", "classes": 4, "labels": "seg/{split}/{name}.png"},
            "depth": {"task": "Depth", "unit": "mm", "max_metres": 9, "labels": "depth/{split}/{name}.png"},
        },
    }
    faults = examine(given, root=root, jobs=1, only=checks).faults
    return sorted(faults, key=lambda fault: (fault.level == "hint", fault.check))


ACROSS = ("shift", "label_shift", "mirrored", "label_mirrored", "other_picture", "contradiction", "duplicates", "video")


def test_nothing_is_told_of_a_clean_set(root):
    assert told(root, *ACROSS) == []


@pytest.mark.parametrize(("down", "right"), [(0, 5), (-4, 0), (3, -6)])
def test_a_label_that_was_moved(root, down, right):
    _, ids, _ = rectangles(4)
    file = put(root, "seg", "train", "p04", np.roll(ids, (down, right), (0, 1)))
    beside, alone = told(root, "shift", "label_shift")
    assert (alone.check, alone.names, alone.files, alone.tasks) == ("shift", ("p04",), (str(file),), ("seg",))
    assert (beside.check, beside.names, beside.tasks) == ("label_shift", ("p04",), ("seg", "depth"))
    back = movement((-down, -right), 1)  # what brings it back
    assert f"moved {back} from" in alone.message and f"moved {back} (" in beside.message


def test_all_labels_moved_alike_are_one_finding(root):
    for file in (root / "depth").rglob("*.png"):
        Image.fromarray(np.roll(np.array(Image.open(file)), 4, 0)).save(file)
    faults = {fault.check: fault for fault in told(root, "shift", "label_shift")}
    assert len(faults["shift"].names) == COUNT and "12 labels together" in faults["shift"].message
    assert "moved 4 px up" in faults["shift"].message and faults["shift"].tasks == ("depth",)
    assert "when seg is moved 4 px down" in faults["label_shift"].message


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (lambda a: a[:, ::-1], "left and right changed"),
        (lambda a: a[::-1], "turned upside down"),
        (lambda a: a[::-1, ::-1], "turned by 180°"),
    ],
)
def test_a_label_that_was_turned_around(root, turn, says):
    put(root, "depth", "val", "p10", np.ascontiguousarray(turn(rectangles(10)[2])))
    beside, alone = told(root, "mirrored", "label_mirrored")
    assert (alone.check, alone.names, alone.tasks) == ("mirrored", ("p10",), ("depth",)) and says in alone.message
    assert (beside.check, beside.names) == ("label_mirrored", ("p10",)) and says in beside.message
    assert not told(root, "shift", "other_picture", "contradiction")


def test_labels_of_each_other(root):
    for name, other in (("p02", 5), ("p05", 2)):
        put(root, "seg", "train", name, rectangles(other)[1])
    alone, beside = told(root, "other_picture", "contradiction")
    assert (alone.check, set(alone.names), alone.tasks) == ("other_picture", {"p02", "p05"}, ("seg",))
    fits = "p05" if alone.names[0] == "p02" else "p02"
    assert f"fits {root / 'images' / 'train' / fits}.png best" in alone.message
    assert (beside.check, set(beside.names)) == ("contradiction", {"p02", "p05"})


def test_pictures_of_one_grey_have_nothing_to_fit(root):
    put(root, "images", "train", "p03", np.full((*SIZE, 3), 90, np.uint8))
    assert told(root, *ACROSS) == []


def test_near_copies_within_and_across(root):
    def near(number):
        picture = Image.fromarray(rectangles(number)[0])
        return np.asarray(picture.resize((119, 91)).resize(SIZE[::-1])) // 2 + 50

    put(root, "images", "train", "p06", near(1))
    put(root, "images", "val", "p11", near(2))
    across, within = told(root, "duplicates")
    assert (across.level, across.names, across.split) == ("warning", ("p11", "p02"), None)
    assert (within.level, within.names, within.split) == ("hint", ("p01", "p06"), "train")


def test_frames_of_one_video(root):
    pixels, ids, depth = rectangles(3)
    for folder, values in (("images", np.roll(pixels, 2, 1)), ("seg", ids), ("depth", depth)):
        put(root, folder, "train", "tape-0100", values[:, :-4])
        put(root, folder, "val", "tape-0101", values[:, 4:])
        put(root, folder, "val", "tape-9000", np.ascontiguousarray(values[:, ::-1]))
    (fault,) = told(root, "video")
    assert fault.names == ("tape-0101", "tape-0100") and fault.level == "hint"


def test_nearest_is_the_smallest_hamming_distance(monkeypatch):
    monkeypatch.setattr(alike, "_BLOCK", 7)
    bits = np.random.default_rng(0).integers(0, 2, (41, 64), np.uint8)
    codes = [int.from_bytes(np.packbits(row).tobytes(), "big") for row in bits]
    groups = [slice(0, 23), slice(23, 41)]
    found = alike.nearest_by_hash((2 * bits.astype(np.int8) - 1), groups)
    for group, (where, least) in zip(groups, found, strict=True):
        for k, code in enumerate(codes):
            apart = {j: (code ^ codes[j]).bit_count() for j in range(group.start, group.stop) if j != k}
            assert least[k] == min(apart.values()) == apart[int(where[k])]


def test_a_copy_is_explained_and_a_stranger_is_not():
    pictures = [Image.fromarray(rectangles(k)[0]).convert("L") for k in range(6)]
    small = np.stack([np.asarray(p.resize((24, 24), Image.Resampling.BOX)) for p in pictures])
    boxes = [p.resize((24, 24), Image.Resampling.BOX, box=(2, 1, 130, 96)) for p in pictures]
    brighter = np.stack([np.asarray(p) for p in boxes]) // 2 + 30
    assert alike.explained(small, brighter).min() > 0.9 > 0.6 > alike.explained(small, np.roll(small, 1, 0)).max()


def planes(focal, middle, seed):
    """Normals and depth of a corner of three planes, seen through any pinhole."""
    draw = np.random.default_rng(seed)
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    rays = np.stack([(u - middle[0]) / focal, (v - middle[1]) / focal, np.ones(SIZE)])
    depth, normals = np.full(SIZE, np.inf), np.zeros((3, *SIZE))
    for _ in range(3):
        normal = np.append(draw.uniform(-0.6, 0.6, 2), -1)
        normal /= np.linalg.norm(normal)
        slope = np.tensordot(normal, rays, 1)
        here = np.where(slope < 0, -draw.uniform(2, 4) / np.minimum(slope, -1e-9), np.inf)
        nearer = here < depth
        depth[nearer], normals[:, nearer] = here[nearer], normal[:, None]
    return normals, np.where(np.isfinite(depth), depth, 0)


@pytest.mark.parametrize(("focal", "middle"), [(60, (65, 48)), (110, (20, 90)), (400, (65.5, 48.5))])
def test_normals_of_planes_fit_their_depth_whatever_the_camera(focal, middle):
    normals, depth = planes(focal, middle, 3)
    cosines = _cosines(np.array([_agreement(normals, depth)]))[0]
    assert cosines[0] > 0.99 and cosines.argmax() == 0
    # a frame of the other axes is recognised as such, and units do not matter
    for frame, (exchanged, x, y) in enumerate(_FRAMES):
        turned = normals * np.array([-1 if x else 1, -1 if y else 1, 1])[:, None, None]
        turned = turned[[1, 0, 2]] if exchanged else turned
        assert _cosines(np.array([_agreement(turned, 1000 * depth)]))[0].argmax() == frame


def test_reach_covers_what_the_page_says():
    assert REACH == 8 and movement((-3, 0), 2) == "6 px up" and movement((1, -2), 1) == "2 px left and 1 px down"
