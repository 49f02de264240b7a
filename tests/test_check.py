"""The look through a set before training: every fault is found, named and said how to mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from PIL import Image
from torchvision import tv_tensors

from garnish.data.check import check
from garnish.data.dataset import Dataset, Sample
from garnish.data.folder import folder
from garnish.data.joined import join
from garnish.errors import DataError
from garnish.tasks.saliency import Saliency
from garnish.training.processes import check_data

RECIPES = Path(__file__).parents[1] / "recipes" / "data"
SHARED = Path(__file__).parents[1].parent / "shared" / "data"
SIZE = (6, 8)


def put(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(np.asarray(values)).save(path)
    return path


@pytest.fixture
def given(tmp_path):
    """Four training pictures and two of validation: three classes in equal shares, depth, normals, edges."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            at = tmp_path / split
            put(at / f"rgb/{split}{number}.png", rng.integers(0, 255, (*SIZE, 3), np.uint8))
            put(at / f"seg/{split}{number}.png", np.arange(48, dtype=np.uint8).reshape(SIZE) % 3)
            put(at / f"depth/{split}{number}.npy", rng.uniform(1, 5, SIZE).astype(np.float32))
            normals = rng.normal(size=(*SIZE, 3))
            normals[..., 2] = -np.abs(normals[..., 2]) - 0.1
            put(at / f"normals/{split}{number}.npy", normals / np.linalg.norm(normals, axis=-1, keepdims=True))
            put(at / f"edges/{split}{number}.png", rng.integers(0, 2, SIZE, np.uint8) * 255)
    return {
        "path": str(tmp_path),
        "images": "{split}/rgb/*.png",
        "tasks": {
            "seg": {"task": "Semantic", "labels": "{split}/seg/{name}.png", "classes": ["a", "b", "c"]},
            "depth": {"task": "Depth", "labels": "{split}/depth/{name}.npy"},
            "normals": {"task": "Normals", "labels": "{split}/normals/{name}.npy"},
            "edges": {"task": "Edges", "labels": "{split}/edges/{name}.png"},
        },
    }


def test_a_sound_set_has_no_findings(given):
    report = check(folder(given))
    assert report.findings == ()
    assert (report.pictures, report.checked) == (4, 4)
    assert report.labels["seg"].shares == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    report.raise_first()
    assert "seg: 4 label maps, 100.0% of their pixels labelled" in str(report)
    assert check(folder(given), limit=2).checked == 2


def test_ids_beyond_the_class_count(given, tmp_path):
    ids = np.zeros(SIZE, np.uint8)
    ids[0, :3], ids[1, :2] = 7, 9
    put(tmp_path / "train/seg/train2.png", ids)
    report = check(folder(given))
    (error,) = report.errors
    assert (
        "seg/train2.png: label ids 7 (3 pixels), 9 (2 pixels), but the 3 classes are 0 to 2 (255 = no label)" in error
    )
    assert "write `ignore: 7`" in error
    assert report.labels["seg"].maps == 3


def damage(tmp_path):
    (tmp_path / "train/rgb/train0.png").write_bytes(b"no")
    return "rgb/train0.png: damaged"


def shrink(tmp_path):
    put(tmp_path / "train/seg/train1.png", np.zeros((6, 7), np.uint8))
    return "seg/train1.png: 7x6, but its picture"


def poison(tmp_path):
    put(tmp_path / "train/depth/train1.npy", np.full(SIZE, np.nan, np.float32))
    return "depth/train1.npy: 48 of 48 depths are NAN; write `invalid: nan`"


def mistake_the_unit(tmp_path):
    put(tmp_path / "train/depth/train1.npy", np.full(SIZE, 2500, np.float32))
    return "exceed max_metres"


@pytest.mark.parametrize("fault", [damage, shrink, poison, mistake_the_unit])
def test_fatal_faults(given, tmp_path, fault):
    expected = fault(tmp_path)
    report = check(folder(given))
    (error,) = report.errors
    assert expected in error
    assert "\n" not in error
    with pytest.raises(DataError, match=r"train\d") as raised:
        report.raise_first()
    assert str(raised.value) == error


def test_all_errors_are_listed_and_the_first_raised(given, tmp_path):
    expected = [fault(tmp_path) for fault in (damage, shrink, poison)]
    report = check(folder(given))
    assert [any(e in error for error in report.errors) for e in expected] == [True] * 3
    with pytest.raises(DataError, match=r"\(and 2 more errors: .*train1") as raised:
        report.raise_first()
    assert "\n" not in str(raised.value)


def test_maps_of_one_value(given, tmp_path):
    put(tmp_path / "train/depth/train1.npy", np.full(SIZE, 2, np.float32))
    put(tmp_path / "train/seg/train1.png", np.full(SIZE, 255, np.uint8))
    put(tmp_path / "train/edges/train1.png", np.full(SIZE, 255, np.uint8))
    report = check(folder(given))
    assert report.errors == ()
    text = "\n".join(report.warnings)
    assert "1 of 4 labels of depth hold one value only" in text
    assert "1 of 4 labels of seg hold no labelled pixel" in text
    assert "1 of 4 labels of edges are foreground everywhere" in text


def test_nothing_labelled_is_an_error(given, tmp_path):
    for number in range(4):
        put(tmp_path / f"train/seg/train{number}.png", np.full(SIZE, 255, np.uint8))
        put(tmp_path / f"train/edges/train{number}.png", np.zeros(SIZE, np.uint8))
    report = check(folder(given))
    (error,) = report.errors
    assert error.startswith("seg: none of 4 labels has a labelled pixel")
    assert any("no pixel of 4 labels is foreground" in w for w in report.warnings)


def test_classes_that_never_occur(given, tmp_path):
    for number in range(4):
        put(tmp_path / f"train/seg/train{number}.png", np.arange(48, dtype=np.uint8).reshape(SIZE) % 2)
    assert any("no pixel of the classes c" in w for w in check(folder(given)).warnings)


def test_normals_of_another_frame(given):
    given["tasks"]["normals"]["flip"] = "z"
    assert any("4 of 4 labels of normals point away from the camera" in w for w in check(folder(given)).warnings)


def test_leaks_are_found_by_content_not_by_name(given, tmp_path):
    (tmp_path / "val/rgb/other.png").write_bytes((tmp_path / "train/rgb/train3.png").read_bytes())
    (warning,) = check(folder(given)).warnings
    assert "train3.png: the same picture as" in warning
    assert "other.png of split 'val' (1 such pairs)" in warning
    assert check(folder(given, "val")).warnings == (warning,)
    (tmp_path / "val/rgb/other.png").rename(tmp_path / "val/rgb/train3.png")
    assert "the same picture" in check(folder(given)).warnings[0]
    put(tmp_path / "val/rgb/train3.png", np.zeros((*SIZE, 3), np.uint8))
    (finding,) = check(folder(given)).findings
    assert finding.severity == "note"
    assert "1 names such as 'train3' occur in 'train' and 'val'" in finding.message
    sets = [folder(given), folder(given, "val")]
    assert check_data(sets, 9, Fabric(devices=1, accelerator="cpu")) == [finding.message]  # a run says it once


def test_class_weights_are_median_frequencies(given, tmp_path):
    maps = [np.random.default_rng(n).choice([0, 0, 0, 1, 255], SIZE).astype(np.uint8) for n in range(4)]
    maps[0][0] = 2
    for number, ids in enumerate(maps):
        put(tmp_path / f"train/seg/train{number}.png", ids)
    frequencies = []
    for k in range(3):
        holding = [m for m in maps if (m == k).any()]
        frequencies.append(sum((m == k).sum() for m in holding) / sum((m != 255).sum() for m in holding))
    wanted = np.median(frequencies) / frequencies
    assert check(folder(given)).labels["seg"].class_weights() == pytest.approx(wanted, rel=1e-3)


class Made(Dataset):
    """A set that is no folder; its second picture has a label that is no yes-or-no map."""

    name = "made"
    tasks = {"saliency": Saliency()}  # noqa: RUF012

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        target = torch.zeros(1, *SIZE)
        target[0, 0] = 1 + index
        image = tv_tensors.Image(torch.zeros(3, *SIZE, dtype=torch.uint8))
        return Sample(image=image, targets={"saliency": tv_tensors.Mask(target)}, name=f"made {index}")


def test_any_set_can_be_checked(given):
    report = check(join(folder(given), Made(2)))
    assert report.checked == 6
    (error,) = report.errors
    assert error.startswith("made 1: values 2 in a yes-or-no map")
    assert report.labels["saliency"].shares["foreground"] == pytest.approx(1 / 6)
    (empty,) = check(Made(0)).errors
    assert "holds no pictures" in empty


# README tables: shares in percent, of all pixels of the named splits. Two cells were rounded twice (16.845 and 0.345).
CAMVID = [16.9, 23.3, 1.0, 31.7, 4.5, 9.7, 1.2, 1.1, 5.9, 0.6, 0.3]
REPLICA = [33.1, 0.5, 9.0, 0.2, 1.9, 18.1, 3.2, 5.7, 0.9, 4.6, 1.6, 0.4, 0.6, 19.7]
CCP = [77.0, 1.3, 3.1, 11.0, 4.7, 1.1, 1.8]


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the pictures of ../shared/data")
@pytest.mark.parametrize(
    ("name", "task", "splits", "percent"),
    [
        ("camvid", "seg", ["train"], CAMVID),
        ("replica", "seg", ["train", "val", "test"], REPLICA),
        ("ccp", "parts", ["train", "val", "test"], CCP),
        ("crackforest", "crack", ["train", "val", "test"], [None, 1.6]),
    ],
)
def test_real_sets_are_sound_and_have_the_shares_of_their_tables(name, task, splits, percent):
    report = check(join(*(folder(RECIPES / f"{name}.yaml", split, tasks=[task]) for split in splits)))
    assert report.findings == ()
    for share, wanted in zip(report.labels[task].shares.values(), percent, strict=True):
        assert wanted is None or 100 * share == pytest.approx(wanted, abs=0.056)


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the pictures of ../shared/data")
def test_all_tasks_of_replica_are_sound():
    report = check(folder(RECIPES / "replica.yaml", "val"))
    assert report.errors == ()
    assert not any("point away" in w for w in report.warnings)
    assert report.labels["depth"].labelled / report.labels["depth"].total > 0.999
