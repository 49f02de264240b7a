"""Data that people hold: what ``gn.dataset`` makes of classes, lists and columns, and what it says of wrong ones."""

from __future__ import annotations

import io
import logging
import pickle
import re
import sys
import time
import types
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as published
from torchvision import tv_tensors
from torchvision.transforms import v2

import garnish as gn
from garnish.data.augment import Augment
from garnish.data.dataset import collate
from garnish.data.identity import changed_aspect, identity
from garnish.data.loader import StepBatches
from garnish.data.subset import thinned
from garnish.errors import DataError, GarnishError, OptionError

SIZE = (6, 10)
SEG = gn.Semantic(classes=["wall", "floor", "thing"])
ALL = {
    "seg": SEG,
    "depth": gn.Depth(max_metres=10.0),
    "normals": gn.Normals(),
    "edges": gn.Edges(),
    "far": gn.RelativeDepth(larger="farther"),
}
OPTIONS = {
    "seg": {"ignore": [7], "offset": -1},
    "depth": {"unit": "mm"},
    "normals": {"axes": "x right, y up, z backward"},
    "far": {"invalid": [0]},
}


def made(seed: int = 0) -> dict[str, np.ndarray]:
    """One picture and what label files of it would hold."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    return {
        "image": rng.integers(0, 256, (*SIZE, 3), np.uint8),
        "seg": rng.choice(np.array([1, 2, 3, 7, 255], np.uint8), SIZE),
        "depth": rng.integers(500, 9000, SIZE).astype(np.uint16),
        "normals": vectors,
        "edges": rng.integers(0, 2, SIZE).astype(np.uint8) * 255,
        "far": rng.integers(0, 60000, SIZE).astype(np.uint16),
    }


class Mine(torch.utils.data.Dataset):
    """A class as people write them."""

    def __init__(self, items, transform=None):
        self.items, self.transform = items, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        return item if self.transform is None else self.transform(item)


def taken(image, mask, task=SEG, **given):
    return gn.dataset([(image, mask)], {"seg": task}, **given)[0]


def number(index: int) -> str:
    return f"picture {index}"


# --- pictures -------------------------------------------------------------------------------------------------------

PICTURE = made()["image"]
TENSOR = torch.from_numpy(PICTURE).permute(2, 0, 1)
MASK = np.arange(60, dtype=np.uint8).reshape(SIZE) % 3


def lazily(image: Image.Image, **options) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG", **options})
    return Image.open(io.BytesIO(stream.getvalue()))


@pytest.mark.parametrize(
    "held",
    [
        PICTURE,
        PICTURE.transpose(2, 0, 1),
        TENSOR,
        TENSOR.permute(1, 2, 0),
        TENSOR.float() / 255,
        TENSOR.double() / 255,
        PICTURE.astype(np.float32) / 255,
        tv_tensors.Image(TENSOR),
        Image.fromarray(PICTURE),
        lazily(Image.fromarray(PICTURE)),
        Image.fromarray(PICTURE).convert("RGBA"),
    ],
)
def test_a_picture_is_the_same_however_it_is_held(held):
    sample = taken(held, MASK)
    assert sample.image.dtype == torch.uint8
    assert (sample.image.permute(1, 2, 0).numpy() == PICTURE).all()


def test_grey_palette_and_sixteen_bits_are_read_as_files_are():
    grey = PICTURE[..., 0]
    for held in (
        grey,
        grey[..., None],
        torch.from_numpy(grey.copy()),
        torch.from_numpy(grey.copy())[None],
        Image.fromarray(grey),
    ):
        assert (taken(held, MASK).image.numpy() == grey[None].repeat(3, 0)).all()
    palette = Image.fromarray(MASK).convert("P")
    palette.putpalette([0, 0, 0, 255, 128, 0, 9, 8, 7])
    wanted = np.array([[0, 0, 0], [255, 128, 0], [9, 8, 7]], np.uint8)[MASK]
    for held in (palette, lazily(palette)):
        assert (taken(held, MASK).image.permute(1, 2, 0).numpy() == wanted).all()
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert (taken(deep, MASK).image[0].numpy() == grey).all()
    assert taken(Image.fromarray(np.full(SIZE, 0x7FFF, np.uint16)), MASK).image.unique().tolist() == [127]


def test_what_people_hold_does_not_change_with_a_picture():
    mine = PICTURE.copy()
    sample = taken(mine, MASK)
    sample.image.zero_()
    assert (mine == PICTURE).all()


NORMALISED = (TENSOR.float() / 255 - 0.45) / 0.22
WRONG_PICTURES = {
    "normalised": (NORMALISED, "seems normalised already; take Normalize out"),
    "minus one to one": (TENSOR.float() / 127.5 - 1, "seems normalised already"),
    "0 to 255 in floats": (TENSOR.float(), "floats up to 25[0-9], where 1 is white; give uint8"),
    "nan": (TENSOR / 255 * torch.nan, "holds NaN"),
    "sixteen bits": (PICTURE.astype(np.uint16) * 200, r"uint16 .* bands=gn.Bands\(range"),
    "int64": (TENSOR.long(), "int64 .* give uint8"),
    "batch": (TENSOR[None], "is a batch"),
    "four channels": (np.concatenate([PICTURE, PICTURE[..., :1]], -1), "without alpha"),
    "thirteen": (np.zeros((13, *SIZE), np.float32), "name the bands"),
    "none": (None, "picture is None"),
    "text of a file that is not there": ("nowhere.png", "nowhere.png: no such file"),
    "an object": (object(), "picture is a object"),
    "no pixels": (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    "strings": (np.array([["a"]]), "no plain numbers"),
    "lists": ([[1, 2], [3]], "numbers of no one shape"),
}


@pytest.mark.parametrize("case", WRONG_PICTURES)
def test_a_wrong_picture_is_said_in_one_line(case):
    held, told = WRONG_PICTURES[case]
    with pytest.raises(DataError, match=told) as error:
        gn.dataset([{"image": held, "seg": MASK}], {"seg": SEG})
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_bands_are_read_by_the_rules_of_files(tmp_path):
    stored = np.random.default_rng(3).integers(0, 10000, (*SIZE, 13)).astype(np.uint16)
    stored[0, 0] = 0
    bands = gn.Bands(names=tuple(f"b{k}" for k in range(13)), scale=1e-4, range=(0.0, 0.4), nodata=0)
    wanted = stored.transpose(2, 0, 1) * 1e-4 / 0.4
    wanted[stored.transpose(2, 0, 1) == 0] = np.nan
    np.save(tmp_path / "a.npy", stored)
    for held in (
        stored,
        stored.transpose(2, 0, 1),
        torch.from_numpy(stored),
        tmp_path / "a.npy",
        str(tmp_path / "a.npy"),
    ):
        data = gn.dataset([(held, MASK)], {"seg": SEG}, bands=bands)
        assert data[0].image.dtype == torch.float32 and data.bands == bands
        np.testing.assert_allclose(data.image(0).numpy(), wanted, rtol=1e-6)
    with pytest.raises(DataError, match="and `bands` name 13"):
        gn.dataset([(stored[..., :4], MASK)], {"seg": SEG}, bands=bands)
    with pytest.raises(DataError, match="infinite"):
        gn.dataset([(np.full((13, *SIZE), np.inf, np.float32), MASK)], {"seg": SEG}, bands=bands)


# --- labels ---------------------------------------------------------------------------------------------------------


def test_labels_are_those_of_the_formula():
    item = made(5)
    sample = gn.dataset([item], ALL, labels=OPTIONS)[0]
    raw = item["seg"].astype(np.int64)
    assert (sample.targets["seg"].numpy() == np.where((raw == 7) | (raw == 255), 255, raw - 1)).all()
    np.testing.assert_allclose(sample.targets["depth"][0].numpy(), item["depth"] / 1000, rtol=1e-6)
    vectors = 2 * item["normals"].astype(np.float64) / 255 - 1
    vectors[..., 1:] *= -1
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    np.testing.assert_allclose(sample.targets["normals"].numpy(), vectors.transpose(2, 0, 1), atol=1e-5)
    assert (sample.targets["edges"][0].numpy() == (item["edges"] == 255)).all()
    far = item["far"].astype(np.float32)
    np.testing.assert_array_equal(sample.targets["far"][0].numpy(), np.where(far == 0, np.nan, far))


MASKS = {
    "array": MASK,
    "int64 tensor": torch.from_numpy(MASK).long(),
    "(1, H, W)": torch.from_numpy(MASK)[None],
    "(H, W, 1)": MASK[..., None],
    "int32": MASK.astype(np.int32),
    "Mask": tv_tensors.Mask(torch.from_numpy(MASK)),
    "lists": MASK.tolist(),
    "L": Image.fromarray(MASK),
    "P": Image.fromarray(MASK).convert("P"),
    "a file not yet decoded": lazily(Image.fromarray(MASK)),
    "I": Image.fromarray(MASK.astype(np.int32)),
    "I;16": Image.fromarray(MASK.astype(np.uint16)),
}


@pytest.mark.parametrize("case", MASKS)
def test_ids_are_the_same_however_they_are_held(case):
    target = taken(PICTURE, MASKS[case]).targets["seg"]
    assert type(target) is tv_tensors.Mask and target.dtype == torch.int64
    assert (target.numpy() == MASK).all()


def test_palette_maps_give_colours_where_colours_are_meant():
    palette = Image.fromarray(MASK).convert("P")
    palette.putpalette([10, 0, 0, 0, 20, 0, 0, 0, 30])
    colours = {"wall": [0, 20, 0], "floor": [10, 0, 0], "thing": [0, 0, 30]}
    for held in (palette, lazily(palette), palette.convert("RGB"), np.asarray(palette.convert("RGB"))):
        target = taken(PICTURE, held, labels={"seg": {"colours": colours}}).targets["seg"]
        assert (target.numpy() == np.array([1, 0, 2])[MASK]).all()


def test_one_map_serves_two_tasks():
    tasks = {"seg": SEG, "edges": gn.Edges()}
    data = gn.dataset(
        [(PICTURE, MASK)], tasks, columns={"seg": 1, "edges": 1}, labels={"edges": {"from": "boundaries"}}
    )
    assert (data[0].targets["seg"].numpy() == MASK).all()
    assert data[0].targets["edges"].shape == (1, *SIZE)
    flat = np.zeros(SIZE, np.uint8)
    flat[:, 5:] = 1
    data = gn.dataset(
        [(PICTURE, flat)], tasks, columns={"seg": 1, "edges": 1}, labels={"edges": {"from": "boundaries"}}
    )
    assert data[0].targets["edges"][0, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]


ONE_HOT = torch.nn.functional.one_hot(torch.from_numpy(MASK).long(), 4).permute(2, 0, 1)
JPEG = lazily(Image.fromarray(MASK), format="JPEG")
WRONG_LABELS = {
    "ToTensor": (SEG, torch.from_numpy(MASK)[None] / 255, {}, "ToTensor divides ids by 255: use PILToTensor"),
    "nothing but NaN": (SEG, np.full(SIZE, np.nan), {}, "holds float64, and ids are whole"),
    "floats": (SEG, torch.from_numpy(MASK).float(), {}, r"give target.long\(\)"),
    "one-hot": (gn.Semantic(classes=4), ONE_HOT, {}, r"argmax\(0\)"),
    "beyond the classes": (SEG, MASK + 1, {}, r"label ids 3 \(20 pixels\).*labels=\{'seg'"),
    "below zero": (SEG, MASK.astype(np.int64) - 1, {}, "holds id -1; write `ignore: -1`"),
    "another size": (SEG, MASK[:-1], {}, "label of task 'seg' is 5x10, the picture 6x10"),
    "colours": (SEG, PICTURE, {}, "holds colours .* `colours: "),
    "JPEG": (SEG, JPEG, {}, "changed by JPEG"),
    "see-through": (SEG, Image.fromarray(np.dstack([PICTURE, MASK])), {}, "not opaque"),
    "no unit": (gn.Depth(), MASK.astype(np.uint16), {}, "no unit; write `unit: mm`"),
    "millimetres in floats": (gn.Depth(), MASK.astype(np.float32) * 1000, {}, "exceed max_metres"),
    "depth NaN": (gn.Depth(), np.full(SIZE, np.nan, np.float32), {}, "write `invalid: nan` if that"),
    "grey levels": (gn.Saliency(), np.arange(60, dtype=np.uint8).reshape(SIZE), {}, "`threshold: 127`"),
    "normals of one channel": (gn.Normals(), MASK, {}, "three channels"),
    "an object": (SEG, object(), {}, "is a object"),
    "polygons": (SEG, {"polygons": []}, {}, "is a dict"),
    "a class of the whole picture": (SEG, 3, {}, "one number, 3, for the whole picture"),
    "a class in a tensor": (SEG, torch.tensor(3), {}, r"shape \(\); give one number per pixel"),
    "a batch": (SEG, MASK[None, None], {}, "give one number per pixel"),
}


@pytest.mark.parametrize("case", WRONG_LABELS)
def test_a_wrong_label_is_said_in_one_line_with_item_and_task(case):
    task, held, options, told = WRONG_LABELS[case]
    with pytest.raises(DataError, match=told) as error:
        gn.dataset([(PICTURE, MASK), {"image": PICTURE, "seg": held}][1:], {"seg": task}, labels={"seg": options})
    assert str(error.value).startswith("list[0]: label of task 'seg'") and len(str(error.value)) < 400


def test_later_items_are_checked_when_they_are_read():
    data = gn.dataset([(PICTURE, MASK)] * 5 + [(PICTURE, MASK + 7), (NORMALISED, MASK)], {"seg": SEG})
    assert len(data) == 7 and data[4].name == "list[4]"
    with pytest.raises(DataError, match=r"list\[5\]: label of task 'seg': label ids"):
        data[5]
    with pytest.raises(DataError, match=r"list\[6\]: its picture"):
        data[-1]
    with pytest.raises(IndexError):
        data[7]
    assert [error.partition(":")[0] for error in gn.check(data).errors] == ["list[5]", "list[6]"]


def turned_picture() -> Image.Image:
    """6 x 10 as shown, on its side as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return lazily(Image.fromarray(PICTURE).transpose(Image.Transpose.ROTATE_90), exif=exif)


def test_a_picture_that_its_camera_turned_asks_how_its_label_lies():
    for picture in (turned_picture(), turned_picture().convert("RGB")):
        assert (taken(picture, MASK, labels={"seg": {"orientation": "upright"}}).targets["seg"].numpy() == MASK).all()
        sample = taken(picture, np.rot90(MASK).copy(), labels={"seg": {"orientation": "stored"}})
        assert (sample.image.permute(1, 2, 0).numpy() == PICTURE).all()
        assert (sample.targets["seg"].numpy() == MASK).all()
        with pytest.raises(DataError, match=r"has EXIF orientation 1, its picture 6; write `orientation: stored`"):
            taken(picture, MASK)


# --- items ----------------------------------------------------------------------------------------------------------

Named = namedtuple("Named", "picture mask")
FORMS = {
    "(picture, target)": ((PICTURE, MASK), {}),
    "list": ([PICTURE, MASK], {}),
    "by task": ((PICTURE, {"seg": MASK, "more": 1}), {}),
    "by task, renamed": ((PICTURE, {"mask": MASK}), {"seg": "mask"}),
    "dictionary": ({"image": PICTURE, "seg": MASK}, {}),
    "dictionary, renamed": (
        {"pixel_values": PICTURE, "annotation": MASK},
        {"image": "pixel_values", "seg": "annotation"},
    ),
    "three": ((3, PICTURE, MASK), {"image": 1, "seg": 2}),
    "nested": (({"a": [PICTURE]}, MASK), {"image": (0, "a", 0), "seg": 1}),
    "named tuple": (Named(PICTURE, MASK), {"image": "picture", "seg": "mask"}),
    "several targets": ((PICTURE, (0, MASK)), {"seg": (1, 1)}),
}


@pytest.mark.parametrize("case", FORMS)
def test_items_of_every_form(case):
    item, columns = FORMS[case]
    data = gn.dataset([item], {"seg": SEG}, columns=columns)
    assert (data[0].image.permute(1, 2, 0).numpy() == PICTURE).all() and (data[0].targets["seg"].numpy() == MASK).all()


def test_a_label_that_is_none_or_not_there_is_no_label():
    tasks = {"seg": SEG, "depth": gn.Depth()}
    metres = np.full(SIZE, 2.5, np.float32)
    data = gn.dataset(
        [
            {"image": PICTURE, "seg": MASK},
            {"image": PICTURE, "seg": None, "depth": metres},
            {"image": PICTURE, "seg": MASK, "depth": metres},
            {"image": PICTURE},
        ],
        tasks,
    )
    assert [sorted(sample.targets) for sample in data] == [["seg"], ["depth"], ["depth", "seg"], []]
    batch = collate([data[k] for k in range(4)])
    assert batch.where == {"seg": [0, 2], "depth": [1, 2]}
    assert "depth: array float32 (H, W), 2.5 to 2.5; Depth, 2 labels in 4 items" in str(data)


TWO = {"seg": SEG, "edges": gn.Edges()}
WRONG_CALLS = {
    "no such key": (lambda: gn.dataset([{"x": PICTURE, "y": MASK}], {"seg": SEG}), "has no 'image', but 'x', 'y'"),
    "no key of the task": (
        lambda: gn.dataset([{"image": PICTURE, "mask": MASK}], {"seg": SEG}),
        "none of .* has 'seg'",
    ),
    "tuple of maps": (lambda: gn.dataset([(PICTURE, (MASK, MASK))], TWO), r"'seg': \(1, 0\), 'edges': \(1, 1\)"),
    "three": (lambda: gn.dataset([(PICTURE, MASK, MASK)], TWO), r"columns=\{'seg': 1, 'edges': 2\}"),
    "one for two": (lambda: gn.dataset([(PICTURE, MASK)], TWO), "has one target, and there are the tasks seg, edges"),
    "pictures alone": (lambda: gn.dataset([PICTURE], {"seg": SEG}), r"ndarray of shape .*give .picture, target."),
    "None": (lambda: gn.dataset([None], {"seg": SEG}), "NoneType"),
    "position beyond": (lambda: gn.dataset([(PICTURE, MASK)], {"seg": SEG}, columns={"seg": 2}), "'seg' is at 2"),
    "other column": (lambda: gn.dataset([(PICTURE, MASK)], {"seg": SEG}, columns={"sge": 1}), "did you mean 'seg'"),
    "other task": (lambda: gn.dataset([(PICTURE, MASK)], {"seg": SEG}, labels={"sge": {}}), "did you mean 'seg'"),
    "other option": (
        lambda: taken(PICTURE, MASK, labels={"seg": {"unit": "mm"}}),
        "does not apply to labels of kind ids",
    ),
    "template": (lambda: taken(PICTURE, MASK, labels={"seg": {"labels": "a"}}), "names files"),
    "annotations": (lambda: taken(PICTURE, MASK, labels={"seg": {"kind": "shapes"}}), "annotation tools"),
    "no tasks": (lambda: gn.dataset([(PICTURE, MASK)], {}), "no tasks"),
    "no task": (lambda: gn.dataset([(PICTURE, MASK)], {"seg": "Semantic"}), "a task such as gn.Depth"),
    "task image": (lambda: gn.dataset([(PICTURE, MASK)], {"image": SEG}), "names the picture"),
    "empty": (lambda: gn.dataset([], {"seg": SEG}), "holds no items"),
    "pair": (lambda: gn.dataset((PICTURE[None], MASK[None]), {"seg": SEG}), "TensorDataset"),
    "loader": (lambda: gn.dataset(torch.utils.data.DataLoader([1]), {"seg": SEG}), "loader.dataset"),
    "splits": (lambda: gn.dataset({"train": [], "val": []}, {"seg": SEG}), "one of its splits"),
    "ours": (lambda: gn.dataset(gn.Scenes(1, size=32), {"seg": SEG}), "data set of garnish already"),
    "class": (lambda: gn.dataset(Mine, {"seg": SEG}), "is a class"),
    "folder": (lambda: gn.dataset("pictures", {"seg": SEG}), "gn.folder"),
    "number": (lambda: gn.dataset(3, {"seg": SEG}), "has no __getitem__"),
    "raises": (lambda: gn.dataset(Mine([0], {}.__getitem__), {"seg": SEG}), r"Mine\[0\]: reading it fails: KeyError 0"),
    "fit": (lambda: gn.check(Mine([0])), r"gn\.dataset\(yours, tasks\)"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_what_is_no_data_set_is_said_in_one_line(case):
    call, told = WRONG_CALLS[case]
    with pytest.raises(GarnishError, match=told) as error:
        call()
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


# --- sources --------------------------------------------------------------------------------------------------------


class Streamed(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([(PICTURE, MASK)] * 6)


def test_what_gives_its_items_once_is_read_into_memory_within_bounds(caplog):
    with caplog.at_level(logging.INFO, "garnish"):
        data = gn.dataset(Streamed(), {"seg": SEG})
    assert "gives its items once, so all 6 were read into memory" in caplog.text
    assert len(data) == 6 and data[5].name == "Streamed[5]" and (data[5].targets["seg"].numpy() == MASK).all()
    assert len(pickle.loads(pickle.dumps(data))) == 6
    each = 6 * 10 * (3 + 8)
    assert len(gn.dataset(iter(Streamed()), {"seg": SEG}, memory_gb=6 * each / 1e9)) == 6
    with pytest.raises(DataError, match=r"after 5 items, as it is read into memory: it gives no item again"):
        gn.dataset(Streamed(), {"seg": SEG}, memory_gb=(6 * each - 1) / 1e9)

    def endless():
        while True:
            yield PICTURE, MASK

    with pytest.raises(DataError, match=r"itertools\.islice"):
        gn.dataset(endless(), {"seg": SEG}, memory_gb=1e-4)

    def failing():
        yield PICTURE, MASK
        raise ValueError("no more")

    with pytest.raises(DataError, match=r"reading what follows item 0 fails: ValueError no more"):
        gn.dataset(failing(), {"seg": SEG})


def test_items_that_change_when_they_are_read_again_are_told(caplog):
    torch.manual_seed(0)
    flip = v2.Compose([lambda item: item, v2.RandomHorizontalFlip(0.5)])
    data = gn.dataset(Mine([(TENSOR, MASK)] * 6, lambda item: (flip(item[0]), item[1])), {"seg": SEG}, identify=number)
    assert "is another each time it is read (image differs); take random changes out" in caplog.text
    assert data.key(0) is None and "numbers of the first items" not in data.content(0)
    caplog.clear()
    gn.dataset(Mine([(TENSOR, MASK)] * 6), {"seg": SEG})
    assert caplog.text == ""


def test_black_pictures_and_labels_that_do_not_count_are_told(caplog):
    gn.dataset([((TENSOR / 255).to(torch.uint8), MASK)] * 2, {"seg": SEG})
    assert "hold nothing above 1 of 255" in caplog.text
    caplog.clear()
    gn.dataset([(PICTURE, np.full(SIZE, 255, np.uint8))] * 2, {"seg": SEG})
    assert "no pixel of the first 2 labels of seg counts" in caplog.text


def test_what_cannot_be_sent_to_workers_is_said_when_it_is_sent():
    data = gn.dataset(Mine([(PICTURE, MASK)], lambda item: item), {"seg": SEG})
    with pytest.raises(OptionError, match=r"cannot be sent to other processes .*lambda.*workers=0"):
        pickle.dumps(data)


class OneAtATime:
    """As a file that is read from where the last reader left it."""

    def __init__(self):
        self.readers = 0

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.readers += 1
        time.sleep(1e-4)
        assert self.readers == 1, "two threads read at once"
        self.readers -= 1
        return PICTURE, MASK

    def path(self, index):
        return f"{index}.png"


def test_threads_ask_for_one_item_at_a_time():
    mine = OneAtATime()
    data = gn.dataset(mine, {"seg": SEG}, identify=mine.path)
    assert data.content(3)["what identify gives"] == "3.png"
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(data.__getitem__, range(40)))) == 40
    assert gn.check(data).findings == ()


def test_worker_processes_make_the_batches_of_this_one():
    items = [(made(k)["image"], MASK) for k in range(6)]
    data = gn.dataset(Mine(items), {"seg": SEG})
    again = pickle.loads(pickle.dumps(data))
    assert (again[3].image == data[3].image).all()
    alone = [StepBatches(data, 2, seed=1).batch_at(step) for step in range(3)]
    for one, other in zip(alone, StepBatches(again, 2, seed=1, workers=2).batches(0, 3), strict=True):
        assert one.names == other.names and (one.images == other.images).all()
        assert (one.targets["seg"] == other.targets["seg"]).all()
    (wrong,) = [gn.dataset(Mine([(PICTURE, MASK)] * 4 + [(PICTURE, MASK + 1)]), {"seg": SEG})]
    with pytest.raises(DataError, match=r"Mine\[4\]"):
        list(StepBatches(wrong, 5, workers=1).batches(0, 1))


def test_what_identifies_items():
    items = [(made(k)["image"], MASK) for k in range(6)]
    data = gn.dataset(items, {"seg": SEG})
    assert data.key(0) is None
    facts = identity(data)
    assert changed_aspect(facts, identity(gn.dataset(list(items), {"seg": SEG}))) == ""
    assert changed_aspect(facts, identity(gn.dataset(items[::-1], {"seg": SEG}))) == "numbers of the first items"
    assert changed_aspect(facts, identity(gn.dataset(items[:5], {"seg": SEG}))) == "number of pictures: 6, now 5"
    other = gn.dataset(items, {"seg": SEG}, labels={"seg": {"ignore": [2]}})
    assert changed_aspect(facts, identity(other)) == "ways of reading labels"
    named, also = (gn.dataset(items, {"seg": SEG}, identify=one) for one in (number, str))
    assert changed_aspect(identity(named), identity(also)) == "what identify gives"
    turned = gn.dataset(items[::-1], {"seg": SEG}, identify=number)
    assert changed_aspect(identity(named), identity(turned)) == "numbers of the first items"
    keys = {
        one.key(k) for one in (named, also, gn.dataset(items[::-1], {"seg": SEG}, identify=number)) for k in range(6)
    }
    assert None not in keys and len(keys) == 18
    assert gn.dataset(items, {"seg": SEG}, identify=number).key(2) == named.key(2)
    for wrong in (len, int):
        with pytest.raises(DataError, match="identify"):
            gn.dataset(items, {"seg": SEG}, identify=wrong).key(0)


# --- the same as files ----------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Five pictures with labels of five tasks, as files and as arrays."""
    items = [made(seed) for seed in range(5)]
    for k, item in enumerate(items):
        for column, values in item.items():
            path = tmp_path / column / f"{k}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(values).save(path)
    entries = {
        task: {"task": type(one).__name__, "labels": f"{task}/{{name}}.png", **OPTIONS.get(task, {})}
        for task, one in ALL.items()
    }
    entries["seg"]["classes"], entries["far"]["larger"] = list(SEG.names), "farther"
    return gn.folder({"images": "image/{name}.png", "tasks": entries}, root=tmp_path), items, tmp_path


def test_samples_are_those_of_the_folder_that_holds_the_same(files):
    folder, items, root = files
    opened = [{column: Image.open(root / column / f"{k}.png") for column in item} for k, item in enumerate(items)]
    named = [{column: root / column / f"{k}.png" for column in item} for k, item in enumerate(items)]
    for held in (items, opened, named):
        data = gn.dataset(held, ALL, labels=OPTIONS)
        for one, other in zip(folder, data, strict=True):
            assert (one.image == other.image).all() and sorted(one.targets) == sorted(other.targets) == sorted(ALL)
            for task, target in one.targets.items():
                assert type(target) is type(other.targets[task]) and target.dtype == other.targets[task].dtype
                np.testing.assert_array_equal(target.numpy(), other.targets[task].numpy())
        one, other = gn.check(data), gn.check(folder)
        assert sorted(one.labels) == sorted(other.labels) == sorted(ALL)
        for task, counts in one.labels.items():
            assert (counts.total, counts.labelled) == (other.labels[task].total, other.labels[task].labelled)
            assert counts.shares == other.labels[task].shares


def test_training_and_metrics_are_those_of_the_folder(files, tmp_path):
    folder, items, _ = files
    data = gn.dataset(Mine(items), ALL, labels=OPTIONS)
    assert len(gn.join(data, folder)) == 10 and gn.join(data, folder).describe()["seg"] == 10
    assert [sample.name for sample in thinned(data, every=2)] == ["Mine[0]", "Mine[2]", "Mine[4]"]
    found = []
    for source in (folder, data):
        torch.manual_seed(0)
        tasks = {name: source.tasks[name] for name in ("seg", "depth")}
        model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=1), tasks)
        augment = Augment(size=(32, 32))
        gn.fit(model, source, source, steps=2, batch_size=2, augment=augment, progress=False, log=(), check_pictures=2)
        found.append(gn.evaluate(model, source, size="own", batch_size=1, progress=False))
    assert str(found[0]) == str(found[1])


# --- torchvision and Hugging Face -----------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path):
    """A tree of Pascal VOC 2012 with three pictures, palette masks with 255 on the borders."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(2)
    masks = []
    for k in range(3):
        Image.fromarray(rng.integers(0, 256, (8 + k, 12, 3), np.uint8)).save(root / f"JPEGImages/2007_{k:06d}.jpg")
        masks.append(rng.choice(np.array([0, 5, 20, 255], np.uint8), (8 + k, 12)))
        image = Image.fromarray(masks[-1]).convert("P")
        image.putpalette(rng.integers(0, 256, 768).tolist())
        image.save(root / f"SegmentationClass/2007_{k:06d}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"2007_{k:06d}\n" for k in range(3)))
    return tmp_path, masks


@pytest.mark.reference
def test_torchvisions_voc_as_it_stands(voc):
    root, masks = voc
    mine = published.VOCSegmentation(root, image_set="train")
    data = gn.dataset(mine, {"seg": gn.Semantic(classes=21)})
    layout = gn.folder({"layout": "PascalVOC", "path": str(root / "VOCdevkit" / "VOC2012")}, "train")
    for k, mask in enumerate(masks):
        assert (data[k].targets["seg"].numpy() == mask).all()
        with Image.open(mine.images[k]) as picture:
            assert (data[k].image.permute(1, 2, 0).numpy() == np.asarray(picture)).all()
        assert (layout[k].image == data[k].image).all() and (layout[k].targets["seg"] == data[k].targets["seg"]).all()
    assert "seg: Pillow's P, ids 0, 5, 20, no label; Semantic, 3 labels in 3 items" in str(data)
    both = v2.Compose([v2.Resize((16, 24)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    resized = published.wrap_dataset_for_transforms_v2(
        published.VOCSegmentation(root, image_set="train", transforms=both)
    )
    assert gn.dataset(resized, {"seg": gn.Semantic(classes=21)})[2].size == (16, 24)
    whole = v2.Compose([both, v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    wrong = published.wrap_dataset_for_transforms_v2(
        published.VOCSegmentation(root, image_set="train", transforms=whole)
    )
    with pytest.raises(DataError, match="normalised already"):
        gn.dataset(wrong, {"seg": gn.Semantic(classes=21)})


@pytest.mark.reference
def test_torchvisions_cityscapes_with_several_targets(tmp_path):
    rng = np.random.default_rng(4)
    for folder in ("leftImg8bit/train/bonn", "gtFine/train/bonn"):
        (tmp_path / folder).mkdir(parents=True)
    ids = rng.choice(np.array([0, 7, 8, 11, 26, 33], np.uint8), (8, 16))
    objects = np.where(ids == 26, 26000 + rng.integers(0, 3, (8, 16)), ids).astype(np.uint16)
    Image.fromarray(rng.integers(0, 256, (8, 16, 3), np.uint8)).save(
        tmp_path / "leftImg8bit/train/bonn/a_leftImg8bit.png"
    )
    Image.fromarray(ids).save(tmp_path / "gtFine/train/bonn/a_gtFine_labelIds.png")
    Image.fromarray(objects).save(tmp_path / "gtFine/train/bonn/a_gtFine_instanceIds.png")
    kept = {c.id: c.train_id for c in published.Cityscapes.classes if 0 <= c.train_id < 255}
    names = [c.name for c in sorted(published.Cityscapes.classes, key=lambda c: c.train_id) if 0 <= c.train_id < 255]
    seg = gn.Semantic(classes=names)
    wanted = np.array([kept.get(k, 255) for k in range(34)])[ids]
    one = published.Cityscapes(tmp_path, split="train", target_type="semantic")
    with pytest.raises(DataError, match="label ids 26"):
        gn.dataset(one, {"seg": seg})
    to_train = {"map": kept, "others": 255}
    assert (gn.dataset(one, {"seg": seg}, labels={"seg": to_train})[0].targets["seg"].numpy() == wanted).all()
    # maps that nobody decodes would leave their files to the collector
    both = {"target_type": ["semantic", "instance"], "target_transform": lambda maps: tuple(map(np.asarray, maps))}
    two = published.Cityscapes(tmp_path, split="train", **both)
    tasks, where = {"seg": seg, "edges": gn.Edges()}, {"seg": (1, 0), "edges": (1, 1)}
    with pytest.raises(DataError, match=r"columns=\{'seg': \(1, 0\), 'edges': \(1, 1\)\}"):
        gn.dataset(two, tasks)
    data = gn.dataset(two, tasks, columns=where, labels={"seg": to_train, "edges": {"from": "boundaries"}})
    assert (data[0].targets["seg"].numpy() == wanted).all()
    across = (objects[:, 1:] != objects[:, :-1]).any()
    assert across and data[0].targets["edges"].max() == 1


class Feature:
    """What ``datasets`` says of a column: a class with names, or a list of a feature."""

    def __init__(self, names=None, feature=None):
        self.names, self.feature = names, feature


class Table:
    """As ``datasets.Dataset``: columns, features, and a dictionary by index."""

    def __init__(self, columns, features):
        self.columns, self.features = columns, features
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        if isinstance(index, str):
            return self.columns[index]
        assert type(index) is int
        return {name: column[index] for name, column in self.columns.items()}


def table(names=("wall", "floor", "thing"), **more):
    columns = {"pixel_values": [Image.fromarray(PICTURE)] * 4, "annotation": [MASK.tolist()] * 4, **more}
    features = {name: Feature() for name in columns}
    features["annotation"] = Feature(feature=Feature(feature=Feature(names=list(names))))
    return Table(columns, features)


COLUMNS = {"image": "pixel_values", "seg": "annotation"}


def test_columns_with_features_as_hugging_face_has_them(caplog):
    assert (gn.dataset(table(), {"seg": SEG}, columns=COLUMNS)[3].targets["seg"].numpy() == MASK).all()
    stream = io.BytesIO()
    Image.fromarray(MASK).save(stream, "PNG")
    undecoded = table(annotation=[{"bytes": stream.getvalue(), "path": None}] * 4)
    assert (gn.dataset(undecoded, {"seg": SEG}, columns=COLUMNS)[3].targets["seg"].numpy() == MASK).all()
    with pytest.raises(OptionError, match=r"has no column 'image'.*pixel_values"):
        gn.dataset(table(), {"seg": SEG})
    with pytest.raises(OptionError, match=r"tasks\.seg: class 0 is 'wall' in the task and 'floor' in the data"):
        gn.dataset(table(("floor", "wall", "thing")), {"seg": SEG}, columns=COLUMNS)
    with pytest.raises(OptionError, match="4 classes, but the data have 3: wall, floor, thing"):
        gn.dataset(table(), {"seg": gn.Semantic(classes=4)}, columns=COLUMNS)
    with caplog.at_level(logging.INFO, "garnish"):
        gn.dataset(table(), {"seg": gn.Semantic(classes=3)}, columns=COLUMNS)
    assert "the data call its classes wall, floor, thing" in caplog.text


def test_classes_of_a_set_are_held_against_names_in_another_order():
    mine = Mine([(PICTURE, MASK)])
    mine.classes = ["cat", "dog", "cow"]  # of whole pictures
    gn.dataset(mine, {"seg": SEG})
    mine.classes = ["floor", "wall", "thing"]
    with pytest.raises(OptionError, match="class 0 is 'wall' in the task and 'floor' in the data"):
        gn.dataset(mine, {"seg": SEG})


def test_what_was_understood_is_printed():
    data = gn.dataset([made(k) for k in range(5)], ALL, labels=OPTIONS, name="rooms")
    first, image, seg, depth, *_ = str(data).splitlines()
    assert first == "rooms: 5 items, 8-bit RGB"
    assert image == "  image: array uint8 (H, W, 3), 6x10 (height x width)"
    assert seg == "  seg: array uint8 (H, W), ids 0, 1, 2, no label; Semantic, 4 labels in 4 items"
    metres = np.concatenate([made(k)["depth"].ravel() for k in range(4)]) / 1000
    assert depth.startswith(f"  depth: array uint16 (H, W), {metres.min():g} to {metres.max():g}; Depth")
    assert data[0].name == "rooms[0]" and Path(data.name).name == "rooms"


@pytest.mark.reference
def test_the_page_does_what_it_says(voc, monkeypatch, tmp_path, capsys):
    page = (Path(__file__).parents[1] / "docs" / "your-data.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    root, _ = voc
    cityscapes = root / "sets" / "cityscapes"
    for folder in ("leftImg8bit/train/bonn", "gtFine/train/bonn"):
        (cityscapes / folder).mkdir(parents=True)
    (root / "VOCdevkit").rename(root / "sets" / "VOCdevkit")
    Image.fromarray(PICTURE).save(cityscapes / "leftImg8bit/train/bonn/a_leftImg8bit.png")
    for kind in ("labelIds", "instanceIds"):
        Image.fromarray(MASK + 7).save(cityscapes / f"gtFine/train/bonn/a_gtFine_{kind}.png")
    for kind, pixels in (("images", PICTURE), ("masks", MASK)):
        for split in ("train", "val"):
            (root / "sets" / kind / split).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(pixels).save(root / "sets" / kind / split / f"{number}.png")
    hugging = types.ModuleType("datasets")
    hugging.load_dataset = lambda kind, data_dir, split: table(annotation=[MASK + 1] * 4)
    monkeypatch.setitem(sys.modules, "datasets", hugging)
    monkeypatch.chdir(root)
    yours = types.ModuleType("yours")  # functions of a module can be sent to workers
    monkeypatch.setitem(sys.modules, "yours", yours)
    for number, block in enumerate(blocks):
        exec(compile(block, f"your-data.md, block {number}", "exec"), vars(yours))
    told = re.search(r"```\n(Rooms: .*?)```", page, flags=re.DOTALL)
    assert told is not None and told[1] in capsys.readouterr().out
    assert len(yours.data) == 3 and yours.data.key(0) is not None and yours.fields.bands.names[1] == "blue"
    assert (yours.streets[0].targets["seg"] != 255).any()
