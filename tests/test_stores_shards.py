"""Training data in tar shards: what webdataset wrote and reads, an order that keeps to few shards, what is refused."""

from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import garnish as gn
from garnish.cli import main
from garnish.data.loader import StepBatches
from garnish.data.shard_order import ShardGroups, joined_groups
from garnish.data.shards.shard_dataset import ShardDataset
from garnish.data.shards.shard_description import shard_description
from garnish.data.sources import open_data
from garnish.errors import DataError, OptionError
from garnish.stores.fetched import FetchedFiles
from garnish.stores.place import Place
from garnish.stores.tar_headers import tar_members

fsspec = pytest.importorskip("fsspec", reason="the extra [store] is not installed")
TASKS = {"seg": {"task": "Semantic", "labels": "{name}.seg.png", "classes": ["a", "b", "c"]}}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GARNISH_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").store.clear()


def png(values: np.ndarray) -> bytes:
    made = io.BytesIO()
    Image.fromarray(values).save(made, "PNG")
    return made.getvalue()


def sample(number: int) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(number)
    return png(rng.integers(0, 256, (16, 16, 3), np.uint8)), png(rng.integers(0, 3, (16, 16), np.uint8))


def tar_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as opened:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return made.getvalue()


def put_shards(count: int = 4, each: int = 3, at: str = "memory://bucket/shards") -> Place:
    place = Place.of(at)
    for shard in range(count):
        files = {}
        for k in range(each):
            image, label = sample(shard * each + k)
            files |= {f"{shard}/{k}.png": image, f"{shard}/{k}.seg.png": label}
        place.write(f"{shard:03}.tar", tar_of(files))
    return place


def given(**more: object) -> dict[str, object]:
    shards = "memory://bucket/shards/{000..003}.tar"
    return {"shards": shards, "images": "{name}.png", "tasks": TASKS, "window": 2, **more}


def opened(tasks=None, cache=None, **more: object) -> ShardDataset:
    return ShardDataset(shard_description(given(**more), "data", Path()), "train", tasks, cache)


def test_samples_are_those_that_webdataset_wrote_and_reads(tmp_path):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with wds.ShardWriter(str(tmp_path / "%03d.tar"), maxcount=3, verbose=0) as writer:
        for number in range(8):
            image, label = sample(number)
            writer.write({"__key__": f"in/{number:02}", "png": image, "seg.png": label, "json": {"number": number}})
    for pattern in (f"{tmp_path}/{{000..002}}.tar", "[0-9]*.tar"):
        data = opened(shards=pattern, path=str(tmp_path))
        urls = [str(tmp_path / f"{number:03}.tar") for number in range(3)]
        theirs = list(wds.WebDataset(urls, shardshuffle=False))
        assert len(data) == len(theirs) == 8
        for index, one in enumerate(theirs):
            read = data[index]
            assert read.name == f"{one['__url__']}:{one['__key__']}.png"
            for bytes_, tensor in ((one["png"], read.image.permute(1, 2, 0)), (one["seg.png"], read.targets["seg"])):
                assert np.array_equal(np.array(Image.open(io.BytesIO(bytes_))), tensor.numpy())


@pytest.mark.parametrize("fetch", [True, False])
def test_a_set_in_shards_is_that_of_a_folder(fetch):
    put_shards()
    for number in range(12):
        image, label = sample(number)
        Path("set").mkdir(exist_ok=True)
        Path("set", f"{number // 3}_{number % 3}.png").write_bytes(image)
        Path("set", f"{number // 3}_{number % 3}.seg.png").write_bytes(label)
    folder = gn.folder({"path": "set", "images": "[0-9]_[0-9].png", "tasks": TASKS})
    shards = open_data(given(fetch=fetch))
    assert len(shards) == len(folder) == 12
    for one, other in zip(shards, folder, strict=True):
        assert torch.equal(one.image, other.image) and torch.equal(one.targets["seg"], other.targets["seg"])
    assert torch.equal(shards.image(5), folder.image(5))
    fetched = sorted(file.name for file in Path("cache/fetched").rglob("*.tar"))
    assert fetched == ([f"{n:03}.tar" for n in range(4)] if fetch else [])


def test_a_second_opening_reads_no_shard_and_a_replaced_shard_is_read_anew(monkeypatch):
    place = put_shards()
    data = opened(fetch=False)
    before = (data[0].name, data.key(0), data.key(11))
    asked = []
    real = Place.read_part
    monkeypatch.setattr(Place, "read_part", lambda *a: asked.append(a[1]) or real(*a))
    again = opened(fetch=False)
    assert (again[0].name, again.key(0), again.key(11)) == before
    assert asked.count("000.tar") == 2 and set(asked) == {"000.tar"}  # a picture and a label; no headers
    image, label = sample(100)
    place.write("003.tar", tar_of({"3/0.png": image, "3/0.seg.png": label}))
    now = opened(fetch=False)
    assert len(now) == 10 and now.key(9) != again.key(9) and now.key(0) == again.key(0)
    assert np.array_equal(now[9].image.permute(1, 2, 0).numpy(), np.array(Image.open(io.BytesIO(image))))


def test_an_epoch_has_each_picture_once_and_keeps_to_few_shards():
    shard = np.repeat(np.arange(10), 5)
    groups = ShardGroups(shard, 3)
    orders = [groups.order(seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3 and np.array_equal(orders[0], groups.order(0, 0))
    for order in orders:
        for first in range(0, 45, 15):
            assert len(set(shard[order[first : first + 15]])) == 3
        seen = shard[order]
        assert (np.diff(seen[:15]) != 0).sum() > 4  # mixed, not one shard after the other
        # no shard comes back once its window is over
        assert all(np.ptp(np.flatnonzero(seen == number)) < 15 for number in range(10))


def test_pictures_in_no_shard_are_spread_among_those_of_shards():
    groups = joined_groups([(60, None), (50, ShardGroups(np.repeat(np.arange(10), 5), 2)), (5, None)])
    assert groups is not None and joined_groups([(3, None)]) is None
    order = groups.order(0, 0)
    assert sorted(order) == list(range(115))
    alone = np.flatnonzero(groups.shard[order] < 0)
    assert 0.3 < np.median(alone) / 115 < 0.7


def test_the_order_does_not_depend_on_who_reads_and_goes_on_inside_a_shard():
    put_shards()
    data = opened()
    whole = list(StepBatches(data, 2, seed=3).batches(0, 12))
    later = list(StepBatches(opened(), 2, seed=3).batches(5, 12))  # 12 pictures an epoch: inside a window and a shard
    for one, other in zip(whole[5:], later, strict=True):
        assert one.names == other.names and torch.equal(one.images, other.images)
    ranks = [StepBatches(data, 1, seed=3, rank=rank, world=2) for rank in range(2)]
    assert [n for step in range(12) for rank in ranks for n in rank.batch_at(step).names] == [
        n for batch in whole for n in batch.names
    ]


@pytest.mark.slow
def test_the_order_does_not_depend_on_the_number_of_workers():
    place = put_shards(at=str(Path.cwd() / "shards"))
    data = opened(shards=f"{place}/{{000..003}}.tar")
    alone, helped = (list(StepBatches(data, 2, seed=3, workers=workers).batches(0, 9)) for workers in (0, 3))
    for one, other in zip(alone, helped, strict=True):
        assert one.names == other.names and torch.equal(one.images, other.images)


def test_a_cache_for_fewer_shards_than_there_are_serves_all(caplog):
    put_shards()
    size = len(Place.of("memory://bucket/shards").read("000.tar", most=10**6))
    cache = FetchedFiles("small", int(2.5 * size))
    data = opened(cache=cache)
    assert [data[k].name for k in range(12)] == [opened()[k].name for k in range(12)]
    held = sum(file.stat().st_size for file in Path("small/fetched").rglob("*") if file.is_file())
    assert held <= 2.5 * size
    with caplog.at_level(logging.WARNING, "garnish"):
        opened(cache=FetchedFiles("smaller", int(1.5 * size)))
    assert "a window of 2 shards can have" in caplog.text and "set a smaller `window`" in caplog.text


def test_check_looks_at_a_split(capsys):
    put_shards()
    Path("data.yaml").write_text(
        'shards: {train: "memory://bucket/shards/{000..003}.tar"}\nimages: "{name}.png"\n'
        'tasks: {seg: {task: Semantic, labels: "{name}.seg.png", classes: [a, b, c]}}\n'
    )
    assert main(["check", "--data", "data.yaml"]) == 0
    assert "12 of 12 pictures checked" in capsys.readouterr().out
    assert main(["check", "--data", "data.yaml", "--split", "val"]) == 2
    assert "no split 'val'" in capsys.readouterr().err
    assert main(["check", "data.yaml"]) == 2
    assert "garnish check --data data.yaml" in capsys.readouterr().err


def test_a_damaged_label_is_told_by_its_shard():
    image, _ = sample(0)
    Place.of("memory://bucket/shards").write("000.tar", tar_of({"x.png": image, "x.seg.png": b"no picture"}))
    with pytest.raises(DataError, match=r"^memory://bucket/shards/000\.tar:x\.seg\.png: ") as told:
        opened(shards="memory://bucket/shards/000.tar")[0]
    assert "garnish-sample" not in str(told.value)


def link() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as opened_:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened_.addfile(info)
    return made.getvalue()


GOOD = tar_of({"a.png": b"1", "a.seg.png": b"2", "b.png": b"3"})


def huge() -> bytes:
    """A header that promises three gigabytes."""
    info = tarfile.TarInfo("a.png")
    info.size = 3 * 2**30
    return info.tobuf() + bytes(1024)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"not a tar file" * 100, "is no tar file"),
        (b"", "is no tar file"),
        (GOOD[:1200], "cut short"),
        (GOOD[:1536], "cut short, behind byte 1,536"),
        (GOOD[:1024] + b"x" * 512 + GOOD[1536:], "is damaged, or cut short, behind byte 1,024"),
        (tar_of({"../a.png": b"1"}), "is no name of a file"),
        (tar_of({"/a.png": b"1"}), "is no name of a file"),
        (tar_of({"a\nb.png": b"1"}), "is no name of a file"),
        (link(), "is a link, a device"),
        (huge(), "more than the 2,147,483,648"),
        (__import__("gzip").compress(GOOD), "a compressed or damaged one"),
    ],
)
def test_tar_files_that_are_refused(data, told):
    with pytest.raises(DataError, match=told) as found:
        list(tar_members(lambda start, stop: data[start:stop], len(data), "s.tar"))
    assert str(found.value).startswith("s.tar: ") and len(str(found.value)) < 400


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_reads_them(format_):
    names = ["a.png", "d/" + "long" * (20 if format_ == tarfile.USTAR_FORMAT else 60) + ".png", "e.png"]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format_) as opened_:
        opened_.addfile(tarfile.TarInfo("d/"))
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 70_000 * number
            opened_.addfile(info, io.BytesIO(bytes([number]) * info.size))
    data = made.getvalue()
    found = list(tar_members(lambda start, stop: data[start:stop], len(data), "s.tar"))
    assert [one.name for one in found] == ["d", *names][-len(found) :]
    assert [data[one.offset : one.offset + one.size] for one in found][-2:] == [b"\x01" * 70_000, b"\x02" * 140_000]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shards": "memory://bucket/shards/{000..004}.tar"}, "004.tar: there is no such shard"),
        ({"shards": "memory://bucket/shards/x*.tar"}, "no shard fits"),
        ({"shards": "memory://bucket/shards/{a,b}.tar"}, "no range of numbers"),
        ({"shards": []}, "write an address or a path"),
        ({"images": "*.jpg"}, "files of a sample have one stem"),
        ({"images": "{name}.jpg"}, "the shards hold png, seg.png"),
        ({"tasks": {"seg": {**TASKS["seg"], "labels": "{name}.ids.png"}}}, "no sample has a file"),
        ({"window": 0}, "give a number of shards"),
        ({"splits": {}}, "unknown key 'splits'"),
    ],
)
def test_descriptions_that_are_refused(change, told):
    put_shards()
    with pytest.raises((OptionError, DataError), match=told):
        opened(**change)


def test_files_of_a_sample_that_are_apart_are_refused():
    Place.of("memory://bucket/shards").write("000.tar", tar_of({"a.png": b"1", "b.png": b"1", "a.seg.png": b"1"}))
    with pytest.raises(DataError, match="is apart from the other files of 'a'"):
        opened(shards="memory://bucket/shards/000.tar")
