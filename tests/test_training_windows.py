"""Crops that training reads as windows are those of the whole picture; nothing else of the files is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image
from torchvision import tv_tensors

import garnish as gn
from garnish.data.augment import Augment
from garnish.data.class_points import ClassPoints
from garnish.data.dataset import Dataset, DepthMap, Sample
from garnish.data.loader import StepBatches
from garnish.data.window_resize import Span, needed_rows, resized_part, weights
from garnish.pictures import tiff_raster
from garnish.pictures.raster import Window

SIZE = (300, 420)


def smooth(channels: int, dtype: type, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    coarse = torch.from_numpy(draw.random((1, channels, 40, 50)))
    fine = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")[0].numpy().transpose(1, 2, 0)
    return (fine.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """Tiled TIFFs of a picture, ids and depth, and the same picture of five 16-bit bands with gaps."""
    root = tmp_path_factory.mktemp("windows")
    for name in ("rgb", "five", "ids", "depth"):
        (root / name).mkdir()
    tifffile.imwrite(root / "rgb/a.tif", smooth(3, np.uint8), tile=(64, 64), compression="zlib", photometric="rgb")
    five = smooth(5, np.uint16, 1)
    five[100:130, 200:240] = 0
    tifffile.imwrite(root / "five/a.tif", five, tile=(64, 64), photometric="minisblack", planarconfig="contig")
    ids = (smooth(1, np.uint8, 2)[..., 0] // 40).astype(np.uint8)
    tifffile.imwrite(root / "ids/a.tif", ids, tile=(64, 64), compression="zlib")
    np.save(root / "depth/a.npy", smooth(1, np.uint16, 3)[..., 0])
    tasks = {
        "seg": {"task": "Semantic", "classes": 8, "labels": "ids/{name}.tif"},
        "depth": {"task": "Depth", "unit": "mm", "max_metres": 70, "labels": "depth/{name}.npy"},
    }
    rgb = {"path": str(root), "images": "rgb/{name}.tif", "tasks": tasks}
    names = ["red", "green", "blue", "near", "far"]
    bands = {"names": names, "range": [0, 65535], "nodata": 0}
    return {"rgb": rgb, "five": {**rgb, "images": "five/{name}.tif", "channels": bands}}


def both(data, augment, seed):
    opened = data.windows(0)
    assert opened is not None and opened.size == SIZE
    return augment.of_windows(opened.size, opened.read, seed), augment(data[0], seed)


@pytest.mark.parametrize("kind", ["rgb", "five"])
@pytest.mark.parametrize(
    "augment",
    [
        Augment(size=(64, 80), scale=(2.0, 4.0)),  # shrinks
        Augment(size=(64, 80), scale=(5.0, 9.0)),  # grows
        Augment(size=(60, 60), scale=(5.0, 5.0)),  # each pixel as it is
        Augment(size=(64, 80), scale=(3.0, 6.0), rotate_degrees=40),
    ],
)
def test_a_window_is_the_crop_of_the_whole(described, kind, augment):
    data, seen = gn.folder(described[kind], "all"), 0
    for seed in range(6):
        part, whole = both(data, augment, (seed,))
        if part is None:
            continue
        seen += 1
        assert part.image.dtype == whole.image.dtype and part.image.shape == whole.image.shape
        one, other = part.image.float(), whole.image.float()
        gaps = one.isnan() ^ other.isnan()
        assert gaps.float().mean() < 2e-3  # at the rim of what has no data
        apart = (one - other).abs().nan_to_num(0)
        # whole pictures of 8 bits are rounded once for each direction, and by fixed point
        assert apart.max() <= (2 if kind == "rgb" else 2e-3)
        assert apart.mean() <= (0.3 if kind == "rgb" else 2e-5)
        for task, target in whole.targets.items():
            assert type(part.targets[task]) is type(target) and part.targets[task].dtype == target.dtype
            same = part.targets[task].as_subclass(torch.Tensor) == target.as_subclass(torch.Tensor)
            assert same.float().mean() >= (1 if not augment.rotate_degrees else 0.995)
    assert seen >= 4


def test_only_the_tiles_of_the_crop_are_decoded(described, monkeypatch):
    data, count = gn.folder(described["rgb"], "all"), [0]
    known = tiff_raster.decoded_tile

    def counted(*args, **options):
        count[0] += 1
        return known(*args, **options)

    monkeypatch.setattr(tiff_raster, "decoded_tile", counted)
    augment = Augment(size=(40, 40), scale=(7.5, 7.5))  # 40 pixels of the file
    part = augment.of_windows(SIZE, data.windows(0).read, (1,))
    assert part is not None and part.size == (40, 40) and 0 < count[0] <= 2 * 4  # of 35 tiles in each of two files


def test_the_loader_takes_windows_where_they_are_less_than_half(described, monkeypatch):
    data = gn.folder(described["rgb"], "all")
    small = StepBatches(data, 1, augment=Augment(size=(64, 64), scale=(4.0, 4.0)))
    large = StepBatches(data, 1, augment=Augment(size=(64, 64), scale=(1.0, 1.0)))
    wanted = small.augment(data[0], small.change_seed(0, 0))
    read = []
    monkeypatch.setattr(type(data), "__getitem__", lambda self, index: read.append(index) or wanted)
    assert (small.sample(0, 0).image.float() - wanted.image.float()).abs().max() <= 2 and not read
    large.sample(0, 0)
    assert read == [0]


def test_a_part_of_a_label_may_be_what_a_whole_must_not(described):
    root = Path(described["rgb"]["path"])
    far = np.full(SIZE, 60000, np.uint16)
    far[0, 0] = 500
    (root / "far").mkdir()
    np.save(root / "far/a.npy", far)
    task = {"task": "Depth", "unit": "mm", "max_metres": 5, "labels": "far/{name}.npy"}
    described = {**described["rgb"], "tasks": {"depth": task}}
    found = gn.folder(described, "all").windows(0).read(Window(50, 50, 20, 20))
    assert not gn.Depth(max_metres=5).labelled(found.targets["depth"]).any()
    np.save(root / "far/a.npy", np.full(SIZE, 60000, np.uint16))
    with pytest.raises(gn.errors.DataError, match="all 126000 depths exceed"):
        gn.folder(described, "all").windows(0).read(Window(50, 50, 20, 20))


def test_what_cannot_be_read_by_windows_is_read_whole(described):
    root = Path(described["rgb"]["path"])
    (root / "png").mkdir()
    Image.fromarray(smooth(3, np.uint8)).save(root / "png/a.png")
    png = {**described["rgb"], "images": "png/{name}.png"}
    assert gn.folder(png, "all").windows(0) is None
    edges = {"edges": {"task": "Edges", "from": "boundaries", "labels": "ids/{name}.tif"}}
    assert gn.folder({**described["rgb"], "tasks": edges}, "all").windows(0) is None
    grey = {"s": {"task": "Saliency", "labels": "ids/{name}.tif"}}
    assert gn.folder({**described["rgb"], "tasks": grey}, "all").windows(0) is None  # 0/1 or 0/255 is a file's
    grey["s"]["threshold"] = 3
    assert gn.folder({**described["rgb"], "tasks": grey}, "all").windows(0) is not None
    joined = gn.join(gn.folder(described["rgb"], "all"), gn.folder(described["rgb"], "all"))
    assert joined.windows(1).size == SIZE
    assert list(joined.windows(1).of_tasks(["seg"]).read(Window(0, 0, 9, 9)).targets) == ["seg"]


@pytest.mark.parametrize(("whole", "scaled"), [(300, 71), (300, 300), (37, 200), (64, 65), (5, 1)])
def test_weights_are_those_of_torch(whole, scaled):
    values = torch.rand(1, whole, 3, generator=torch.Generator().manual_seed(0))
    want = torch.nn.functional.interpolate(values[None], (scaled, 3), mode="bilinear", antialias=True)[0]
    for part in (Span(0, scaled), Span(scaled // 3, max(scaled // 2, scaled // 3 + 1))):
        held = needed_rows(part, whole, scaled)
        rows = weights(part, whole, scaled, held)
        found = resized_part(values[:, held.first : held.end], rows, torch.eye(3))
        torch.testing.assert_close(found, want[:, part.first : part.end], rtol=1e-4, atol=1e-5)


def test_training_reads_windows_of_a_described_set(tmp_path, described):
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(described["rgb"]))
    data = gn.folder(tmp_path / "data.yaml", "all")
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), data.tasks, gn.LinearHead())
    change = Augment(size=(64, 64), scale=(3.0, 4.0))
    result = gn.fit(model, data, None, steps=1, batch_size=2, augment=change, progress=False, log=(), workers=0)
    assert result is not None


class Rare(Dataset):
    """One picture in which class 2 has one pixel of 40,000, and class 1 a corner."""

    name = "rare"

    def __init__(self, tasks):
        self._tasks = tasks

    @property
    def tasks(self):
        return self._tasks

    def __len__(self):
        return 1

    def __getitem__(self, index):
        ids = torch.zeros(200, 200, dtype=torch.int64)
        ids[:20, :20], ids[150, 33], ids[:, 190:] = 1, 2, 255
        image = tv_tensors.Image(torch.zeros(3, 200, 200, dtype=torch.uint8))
        targets = {"seg": tv_tensors.Mask(ids), "depth": DepthMap(torch.ones(1, 200, 200))}
        return Sample(image, {task: targets[task] for task in self._tasks}, "rare")


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_balanced_crops_hold_each_class_as_often(degrees):
    tasks = {"seg": gn.Semantic(classes=3), "depth": gn.Depth()}
    augment = Augment(size=(50, 50), scale=(4.0, 4.0), rotate_degrees=degrees, balance="seg")
    made = StepBatches(Rare(tasks), 1, augment=augment)
    assert sorted(made.points[0]) == [0, 1, 2] and made.points[0][2].tolist() == [[150, 33]] * 64
    seen = [set(made.sample(epoch, 0).targets["seg"].unique().tolist()) for epoch in range(120)]
    share = [sum(label in one for one in seen) / len(seen) for label in (1, 2)]
    assert share[1] > 0.2 and (share[0] > 0.2 or degrees)  # a rotation brings some of the corner outside
    plain = StepBatches(Rare(tasks), 1, augment=dataclasses.replace(augment, balance=None))
    seen = [set(plain.sample(epoch, 0).targets["seg"].unique().tolist()) for epoch in range(120)]
    assert sum(1 in one for one in seen) < 0.15 * len(seen)
    for name, says in (
        ("sec", "no task 'sec' in rare; did you mean 'seg'"),
        ("depth", "are no classes; name one of seg"),
    ):
        with pytest.raises(gn.errors.OptionError, match=says):
            StepBatches(Rare(tasks), 1, augment=Augment(size=(50, 50), balance=name))


def test_points_of_windows_are_of_their_class_and_crops_alike(described):
    data = gn.folder(described["rgb"], "all")
    points, ids = ClassPoints(data, "seg")[0], data[0].targets["seg"]
    assert sorted(points) == ids.unique().tolist()
    for label, places in points.items():
        assert all(ids[y, x] == label for y, x in places.tolist())
    augment = Augment(size=(48, 48), scale=(5.0, 5.0), balance="seg")
    for seed in range(4):
        opened = data.windows(0)
        part = augment.of_windows(opened.size, opened.read, (seed,), points)
        assert torch.equal(part.targets["seg"], augment(data[0], (seed,), points).targets["seg"])
