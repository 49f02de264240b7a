from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from garnish.data.augment import Augment
from garnish.data.dataset import Batch, Dataset, DepthMap, Sample, collate
from garnish.data.loader import StepBatches
from garnish.errors import DataError, OptionError
from garnish.tasks.depth import Depth
from garnish.tasks.semantic import Semantic


class Pictures(Dataset):
    """Picture i is filled with i; even ones have ids, every third one depth."""

    name = "pictures"
    tasks = {"seg": Semantic(classes=200), "depth": Depth(max_metres=1000)}  # noqa: RUF012

    def __init__(self, count: int, broken: int = -1) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index == self.broken:
            raise DataError(f"{index}.png: damaged; remove it")
        g = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 16, 16), generator=g, dtype=torch.uint8)
        image[0] = index
        targets: dict[str, tv_tensors.TVTensor] = {}
        if index % 2 == 0:
            targets["seg"] = tv_tensors.Mask(torch.full((16, 16), index))
        if index % 3 == 0:
            targets["depth"] = DepthMap(torch.full((1, 16, 16), float(index)))
        return Sample(tv_tensors.Image(image), targets, f"{index}.png")


CHANGE = Augment(size=(12, 12), scale=(0.8, 1.3), flip=0.5, rotate_degrees=5.0, colour=0.2)


def assert_same(a: Batch, b: Batch) -> None:
    assert a.names == b.names and a.where == b.where and list(a.targets) == list(b.targets)
    assert torch.equal(a.images, b.images)
    assert all(torch.equal(a.targets[t], b.targets[t]) for t in a.targets)


def test_collate_stacks_only_what_has_labels():
    batch = collate([Pictures(9)[i] for i in (3, 1, 6, 2)])
    assert batch.where == {"depth": [0, 2], "seg": [2, 3]}
    assert batch.tasks_of_rows() == [["depth"], [], ["depth", "seg"], ["seg"]]
    assert batch.targets["depth"].shape == (2, 1, 16, 16) and batch.targets["depth"][:, 0, 0, 0].tolist() == [3, 6]
    assert batch.targets["seg"][:, 0, 0].tolist() == [6, 2] and batch.targets["seg"].dtype == torch.int64
    assert batch.images.dtype == torch.float32 and 0.9 < batch.images.max() <= 1
    torch.testing.assert_close(batch.images[:, 0, 0, 0], torch.tensor([3.0, 1, 6, 2]) / 255)
    assert type(batch.images) is torch.Tensor and all(type(t) is torch.Tensor for t in batch.targets.values())
    assert batch.names == ["3.png", "1.png", "6.png", "2.png"] and len(batch.to("cpu")) == 4


def test_collate_names_pictures_of_other_size():
    small = Sample(tv_tensors.Image(torch.zeros(3, 4, 4, dtype=torch.uint8)), {}, "small.png")
    with pytest.raises(DataError, match=r"0\.png is 16x16, small\.png 4x4"):
        collate([Pictures(1)[0], small])


def test_every_epoch_shows_every_picture_once_in_another_order():
    batches = StepBatches(Pictures(10), 4, seed=3)
    names = [n for step in range(5) for n in batches.batch_at(step).names]
    assert sorted(names[:10]) == sorted(names[10:]) == sorted(f"{i}.png" for i in range(10))
    assert names[:10] != names[10:]
    assert names != [n for step in range(5) for n in StepBatches(Pictures(10), 4, seed=4).batch_at(step).names]


def test_a_batch_is_a_function_of_its_step():
    np.random.seed(1)
    torch.manual_seed(1)
    a = StepBatches(Pictures(10), 4, seed=3, augment=CHANGE)
    late = a.batch_at(7)
    for step in range(9):
        a.batch_at(step)
    torch.manual_seed(5)
    assert_same(late, a.batch_at(7))
    assert_same(late, StepBatches(Pictures(10), 4, seed=3, augment=CHANGE).batch_at(7))


def test_a_picture_changes_differently_in_each_epoch():
    batches = StepBatches(Pictures(3), 6, augment=CHANGE)  # two epochs in one step
    batch = batches.batch_at(0)
    for name in set(batch.names):
        first, second = (i for i, n in enumerate(batch.names) if n == name)
        assert not torch.equal(batch.images[first], batch.images[second])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batch_of_one(world):
    for step in (0, 3, 11):
        whole = StepBatches(Pictures(10), 8, seed=2, augment=CHANGE).batch_at(step)
        parts = [
            StepBatches(Pictures(10), 8 // world, seed=2, augment=CHANGE, rank=rank, world=world).batch_at(step)
            for rank in range(world)
        ]
        assert [name for p in parts for name in p.names] == whole.names
        assert torch.equal(torch.cat([p.images for p in parts]), whole.images)
        for task, target in whole.targets.items():
            assert torch.equal(torch.cat([p.targets[task] for p in parts if task in p.targets]), target)


def test_workers_change_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = list(StepBatches(Pictures(10), 4, seed=1, augment=CHANGE).batches(2, 7))
    helped = list(StepBatches(Pictures(10), 4, seed=1, augment=CHANGE, workers=2).batches(2, 7))
    assert len(alone) == len(helped) == 5
    for a, b in zip(alone, helped, strict=True):
        assert_same(a, b)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_one_line(workers):
    with pytest.raises(DataError, match=r"^4\.png: damaged; remove it$"):
        list(StepBatches(Pictures(6, broken=4), 3, workers=workers).batches(0, 2))


def test_refusals():
    with pytest.raises(DataError, match=r"^pictures: no pictures"):
        StepBatches(Pictures(0), 2)
    with pytest.raises(OptionError, match="rank 2 of 2"):
        StepBatches(Pictures(2), 1, rank=2, world=2)


def test_variants_are_few_and_the_same_in_every_run():
    def versions(seed: int, variants: int | None, epochs: int = 6) -> list[set[bytes]]:
        batches = StepBatches(Pictures(4), 4, seed=seed, augment=CHANGE, variants=variants)
        found: list[set[bytes]] = [set() for _ in range(4)]
        for step in range(epochs):
            batch = batches.batch_at(step)
            for name, image in zip(batch.names, batch.images, strict=True):
                found[int(name.split(".")[0])].add(image.numpy().tobytes())
        return found

    assert [len(v) for v in versions(0, 2)] == [2] * 4
    assert versions(0, 2) == versions(7, 2) and versions(0, None) != versions(7, None)
    assert [len(v) for v in versions(0, None)] == [6] * 4
    for few, more in zip(versions(1, 1), versions(1, 3), strict=True):
        assert len(few) == 1 and few < more  # version 0 is the same one, however many there are
    with pytest.raises(OptionError, match="variants 0"):
        StepBatches(Pictures(2), 1, variants=0)
