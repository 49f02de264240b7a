"""Data sets of every kind of label written as a plain folder: the same pictures and targets are read back."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from garnish.cli import main
from garnish.commands.predict_progress import PredictProgress
from garnish.data.conversion.convert import convert
from garnish.data.folder import description_of, folder
from garnish.errors import GarnishError

SIZE = (5, 7)
RNG = np.random.default_rng(3)


def put(path: Path, values, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path, **options)


def ids(most: int, kind=np.uint8, size=SIZE) -> np.ndarray:
    return RNG.integers(0, most, size).astype(kind)


def directions() -> np.ndarray:
    vectors = RNG.normal(size=(*SIZE, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def rgb(vectors: np.ndarray) -> np.ndarray:
    return np.rint((vectors + 1) * 127.5).astype(np.uint8)


SEG = {"task": "Semantic", "classes": ["a", "b", "c"]}
#: name → (suffix of the labels, how one is made, options, what the new files are)
KINDS = {
    "ids": (".png", lambda: ids(3), SEG, ".png"),
    "mapped": (".png", lambda: ids(9), {**SEG, "map": {1: 0, 7: 2}, "others": 255}, ".png"),
    "negative": (".npy", lambda: ids(4, np.int64) - 1, {**SEG, "ignore": -1}, ".png"),
    "divided": (".png", lambda: ids(3, np.uint16) * 1000, {**SEG, "divide": 1000}, ".png"),
    "number": (".png", lambda: ids(200), {"task": "Semantic", "classes": 200, "dice": 1}, ".png"),
    "colours": (
        ".png",
        lambda: np.array([[1, 2, 3], [9, 9, 9], [0, 0, 0]], np.uint8)[ids(3)],
        {**SEG, "colours": {"a": "#010203", "b": [9, 9, 9], "ignore": "#000"}},
        ".png",
    ),
    "edges": (".png", lambda: ids(3), {"task": "Edges", "from": "boundaries", "ignore": 2}, ".png"),
    "grey": (".png", lambda: ids(256), {"task": "Saliency", "threshold": 100, "ignore": [7, 8]}, ".png"),
    "parts": (".png", lambda: ids(6), {"task": "Saliency", "positive": [2, 3]}, ".png"),
    "mm": (".png", lambda: ids(9000, np.uint16), {"task": "Depth", "unit": "mm"}, ".png"),
    "kitti": (".png", lambda: ids(60000, np.uint16), {"task": "Depth", "scale": 1 / 256, "max_metres": 300}, ".png"),
    "metres": (".npy", lambda: RNG.uniform(-1, 80, SIZE).astype(np.float32), {"task": "Depth"}, ".npy"),
    "holes": (
        ".npy",
        lambda: np.where(ids(2) > 0, np.nan, RNG.uniform(0.1, 9, SIZE)).astype(np.float32),
        {"task": "Depth", "invalid": "nan"},
        ".npy",
    ),
    "far": (".png", lambda: ids(60000, np.uint16), {"task": "Depth", "unit": "cm", "max_metres": 700}, ".png"),
    "packed": (
        ".png",
        lambda: RNG.integers(0, 256, (*SIZE, 3)).astype(np.uint8),
        {"task": "Depth", "packed": [1, 256, 65536], "scale": 5.96046483e-5, "max_metres": 1100},
        ".npy",
    ),
    "disparity": (
        ".png",
        lambda: ids(256),
        {"task": "RelativeDepth", "larger": "nearer", "invalid": [0]},
        ".png",
    ),
    "inverse": (
        ".npy",
        lambda: RNG.normal(size=SIZE).astype(np.float32),
        {"task": "RelativeDepth", "larger": "farther", "invalid": ["nan"]},
        ".npy",
    ),
    "normals": (
        ".png",
        lambda: rgb(directions()),
        {"task": "Normals", "axes": "x right, y up, z backward"},
        ".png",
    ),
    "vectors": (".npy", lambda: directions().astype(np.float32), {"task": "Normals", "flip": "z"}, ".npy"),
}


def source(root: Path, kind: str, splits=("train", "val"), **changes) -> dict:
    suffix, made, options, _ = KINDS[kind]
    for split in splits:
        for name in ("x", "deep/y.z"):
            put(root / f"rgb/{split}/{name}.png", RNG.integers(0, 256, (*SIZE, 3)).astype(np.uint8))
            put(root / f"labels/{split}/{name}{suffix}", made())
    task = {"labels": f"labels/{{split}}/{{name}}{suffix}", **options}
    return {"path": str(root), "images": "rgb/{split}/{name}.png", "tasks": {"t": task}, **changes}


def same(before, after, within: float = 0.0) -> None:
    assert len(before) == len(after) > 0
    assert before.tasks == after.tasks
    for index in range(len(before)):
        one, other = before[index], after[index]
        assert torch.equal(one.image, other.image)
        assert one.targets.keys() == other.targets.keys()
        for task, target in one.targets.items():
            assert type(target) is type(other.targets[task])
            if within:
                assert ((target == 0) == (other.targets[task] == 0)).all()
                assert (target - other.targets[task]).abs().max() <= within
            else:
                assert np.array_equal(target.numpy(), other.targets[task].numpy(), equal_nan=target.is_floating_point())


def refused(call) -> str:
    with pytest.raises(GarnishError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_targets_are_read_back(tmp_path, kind):
    given, out = source(tmp_path / "in", kind), tmp_path / "out"
    made = convert(given, out, jobs=1)
    assert made.pictures == {"train": 2, "val": 2}
    assert made.labels == {"t": 4}
    for split in ("train", "val"):
        after = folder(out, split)
        same(folder(given, split), after)
        assert {file.suffix for index in range(2) for file in after.label_files(index).values()} == {KINDS[kind][3]}
    assert sorted(p.name for p in out.iterdir()) == ["data.yaml", "train", "val"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_ids_are_painted_and_names_flat(tmp_path):
    convert(source(tmp_path / "in", "ids"), tmp_path / "out")
    with Image.open(tmp_path / "out/train/masks/deep__y.z.png") as image:
        assert image.mode == "P"
        assert len(image.getpalette()) == 768
    assert (tmp_path / "out/train/images/deep__y.z.png").is_file()


def test_depth_in_steps(tmp_path):
    kitti = source(tmp_path / "in", "kitti")
    made = convert(kitti, tmp_path / "a")
    assert made.forms["t"] == "16 bits, steps of 0.00390625 m, 0 is none"
    made = convert(kitti, tmp_path / "b", rounds_depth=True)
    # 60000 / 256 m are beyond 65.535 m, which is what millimetres in 16 bits reach
    assert made.forms["t"].startswith("float32")
    metres = source(tmp_path / "near", "metres")
    for file in (tmp_path / "near/labels").rglob("*.npy"):
        np.save(file, np.clip(np.load(file), -1, 60))
    made = convert(metres, tmp_path / "c", rounds_depth=True)
    assert made.forms["t"] == "16 bits, rounded to millimetres, 0 is none"
    same(folder(metres), folder(tmp_path / "c"), within=0.000501)
    # one picture of which a depth would become none
    file = next((tmp_path / "near/labels/val").rglob("*.npy"))
    np.save(file, np.where(ids(2) > 0, 0.0002, 1).astype(np.float32))
    assert convert(metres, tmp_path / "d", rounds_depth=True).forms["t"].startswith("float32")
    same(folder(metres, "val"), folder(tmp_path / "d", "val"))


@pytest.mark.parametrize("stored", ["upright", "stored"])
def test_pictures_that_exif_turns(tmp_path, stored):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = RNG.integers(0, 256, (8, 16, 3)).astype(np.uint8)
    put(tmp_path / "rgb/a.jpg", values, exif=exif, quality=95)
    put(tmp_path / "rgb/b.jpg", values, quality=95)
    for name, size in (("a", (8, 16) if stored == "stored" else (16, 8)), ("b", (8, 16))):
        put(tmp_path / f"seg/{name}.png", ids(3, size=size))
        vectors = RNG.normal(size=(*size, 3))
        put(tmp_path / f"n/{name}.png", rgb(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)))
    given = {
        "path": str(tmp_path),
        "images": "rgb/*",
        "tasks": {
            "seg": {**SEG, "labels": "seg/{name}.png", "orientation": stored},
            "normals": {"task": "Normals", "labels": "n/{name}.png", "orientation": stored},
        },
    }
    made = convert(given, tmp_path / "out")
    assert made.turned == 1
    before, after = folder(given), folder(tmp_path / "out")
    assert [p.suffix for p in sorted((tmp_path / "out/train/images").iterdir())] == [".png", ".jpg"]
    assert (tmp_path / "out/train/images/b.jpg").read_bytes() == (tmp_path / "rgb/b.jpg").read_bytes()
    for index in range(2):
        assert torch.equal(before[index].image, after[index].image)
        assert torch.equal(before[index].targets["seg"], after[index].targets["seg"])
        off = before[index].targets["normals"] - after[index].targets["normals"]
        assert off.abs().max() <= (3e-7 if stored == "stored" else 0)


def test_splits_lists_tables_and_held_out_pictures(tmp_path):
    given = source(tmp_path / "in", "ids", splits=("train",))
    for number in range(6):
        put(tmp_path / f"in/rgb/train/v{number}_1.png", np.zeros((*SIZE, 3), np.uint8))
        put(tmp_path / f"in/labels/train/v{number}_1.png", ids(3))
    held = {**given, "hold_out": 0.25}
    made = convert(held, tmp_path / "held")
    assert made.pictures == {"train": 6, "val": 2}
    for split in ("train", "val"):
        same(folder(held, split), folder(tmp_path / "held", split))
    listed = {**given, "images": "rgb/train/{name}.png", "splits": {"a.txt": ["x"], "b c": ["v1_1", "v2_1"]}}
    listed["tasks"] = {"t": {**given["tasks"]["t"], "labels": "labels/train/{name}.png"}}
    made = convert(listed, tmp_path / "listed", splits=["b c"])
    assert made.pictures == {"b c": 2}
    same(folder(listed, "b c"), folder(tmp_path / "listed", "b c"))
    with pytest.raises(GarnishError, match="no split 'c'"):
        convert(listed, tmp_path / "none", splits=["c"])


def test_pictures_of_other_bands(tmp_path):
    for name in "ab":
        for band in (1, 2, 3, 4):
            put(tmp_path / f"in/{name}_{band}.tif", ids(9000, np.uint16))
        put(tmp_path / f"in/{name}_seg.png", ids(3))
    given = {
        "path": str(tmp_path / "in"),
        "images": {band: f"{{name}}_{k}.tif" for k, band in enumerate(("blue", "green", "red", "nir"), 1)},
        "channels": {"names": ["blue", "green", "red", "nir"], "range": [0, 10000]},
        "tasks": {"seg": {**SEG, "labels": "{name}_seg.png"}},
    }
    convert(given, tmp_path / "out")
    before, after = folder(given), folder(tmp_path / "out")
    assert before.bands == after.bands
    same(before, after)


def test_links(tmp_path):
    given = source(tmp_path / "in", "mm")
    convert(given, tmp_path / "out", link=True)
    assert (tmp_path / "out/val/images/x.png").stat().st_ino == (tmp_path / "in/rgb/val/x.png").stat().st_ino
    same(folder(given, "val"), folder(tmp_path / "out", "val"))


def test_nothing_is_replaced_or_left(tmp_path, monkeypatch):
    given = source(tmp_path / "in", "ids")
    out = tmp_path / "out"
    out.mkdir()
    assert "exists already" in refused(lambda: convert(given, out))
    out.rmdir()
    bad = tmp_path / "in/labels/val/x.png"
    put(bad, np.full(SIZE, 77, np.uint8))
    assert f"{bad}: label ids 77" in refused(lambda: convert(given, out))
    bad.write_bytes(b"PNG")
    assert "damaged" in refused(lambda: convert(given, out))
    put(bad, ids(3))
    put(tmp_path / "in/rgb/val/deep/y.z.png", np.zeros((4, 4, 3), np.uint8))
    assert "but its picture" in refused(lambda: convert(given, out))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert "no folder" in refused(lambda: convert({**given, "path": str(tmp_path / "none")}, out))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing(tmp_path, monkeypatch, number, code):
    given = source(tmp_path / "in", "ids", path=".")
    (tmp_path / "in/data.yaml").write_text(yaml.safe_dump(given))
    former = signal.getsignal(signal.SIGTERM)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    monkeypatch.setattr(PredictProgress, "picture", lambda self, name: os.kill(os.getpid(), number))
    try:
        assert main(["convert", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--jobs", "1"]) == code
    except SystemExit as error:
        assert error.code == code
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert signal.getsignal(signal.SIGTERM) is former


def test_what_a_killed_conversion_left_is_taken_away(tmp_path, caplog):
    given = source(tmp_path / "in", "ids")
    left = tmp_path / ".out.growing"
    ready = tmp_path / "ready"
    script = (
        "import sys, time; from pathlib import Path; from garnish.errors import DataError\n"
        "from garnish.files.growing_folder import growing_folder\n"
        f"with growing_folder(Path({str(tmp_path / 'out')!r}), DataError) as made:\n"
        f"    (made / 'a.txt').write_text('a'); Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as writer:
        while not ready.exists():
            time.sleep(0.01)
        assert "somebody else is writing it" in refused(lambda: convert(given, tmp_path / "out"))
        writer.kill()
    assert (left / "out/a.txt").exists()
    (left / "out/link").symlink_to(tmp_path / "in")
    before = sorted(file for file in (tmp_path / "in").rglob("*"))
    with caplog.at_level(logging.WARNING):
        convert(given, tmp_path / "out")
    assert f"{left}: left by an interrupted writer, removed" in caplog.messages
    assert not left.exists() and not (tmp_path / "out/a.txt").exists()
    assert sorted(file for file in (tmp_path / "in").rglob("*")) == before


@pytest.mark.parametrize("is_link", [True, False])
def test_what_no_conversion_left_stays(tmp_path, is_link):
    given = source(tmp_path / "in", "ids")
    left = tmp_path / ".out.growing"
    if is_link:
        left.symlink_to(tmp_path / "in")
    else:
        left.write_text("mine")
    assert f"{left.name} is in the way" in refused(lambda: convert(given, tmp_path / "out"))
    assert os.path.lexists(left) and (tmp_path / "in/rgb").is_dir()


def test_the_command(tmp_path, capsys):
    given = source(tmp_path / "in", "colours", path=".")
    (tmp_path / "in/data.yaml").write_text(yaml.safe_dump(given))
    out = tmp_path / "out"
    assert main(["convert", str(tmp_path / "in"), "--out", str(out), "--jobs", "1"]) == 0
    told = capsys.readouterr().out
    assert f"{out}: 4 pictures (train 2, val 2)" in told
    assert "t: 4 labels, ids, 255 is no label" in told
    assert main(["check", "--data", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["errors"] == []
    assert main(["convert", str(tmp_path / "in"), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    few = ["convert", str(tmp_path / "in"), "--out", str(tmp_path / "few"), "--splits", "val", "--json"]
    assert main(few) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == {"val": 2}
    assert main([*few, "--data.every.val", "2", "--out", str(tmp_path / "x")]) == 2
    assert main(["convert", "x", "--out", str(tmp_path / "y"), "--data", "z"]) == 2
    assert main(["convert", str(out), "--out", str(tmp_path / "y"), "--column", "a=b"]) == 2


# Parquet


def file_bytes(values: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def shard(path: Path, rows: list[dict]) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow, which reads Parquet")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=2)


def hub(root: Path) -> list[dict]:
    rows = [
        {
            "image": {"bytes": file_bytes(RNG.integers(0, 256, (*SIZE, 3)).astype(np.uint8), "JPEG"), "path": name},
            "annotation": {"bytes": file_bytes(ids(3)), "path": None},
            "scene": "street",
        }
        for name in ("s/a_1.jpg", "s/a_2.jpg", "../../a_1.jpg", None, "b.jpg")
    ]
    shard(root / "data/train-00000-of-00002.parquet", rows[:3])
    shard(root / "data/train-00001-of-00002-0123456789abcdef.parquet", rows[3:])
    shard(root / "data/validation-00000-of-00001.parquet", rows[:1])
    return rows


def test_parquet_is_unpacked(tmp_path, capsys):
    rows = hub(tmp_path / "hub")
    assert "unpack them once: garnish convert" in refused(lambda: folder(tmp_path / "hub"))
    assert main(["convert", str(tmp_path / "hub"), "--out", str(tmp_path / "out")]) == 0
    assert "train: 5 images, 5 masks" in capsys.readouterr().out
    names = sorted(p.name for p in (tmp_path / "out/train/images").iterdir())
    assert names == ["000002.jpg", "000003.jpg", "a_1.jpg", "a_2.jpg", "b.jpg"]
    assert (tmp_path / "out/train/images/a_2.jpg").read_bytes() == rows[1]["image"]["bytes"]
    assert (tmp_path / "out/train/masks/b.png").read_bytes() == rows[4]["annotation"]["bytes"]
    assert len(folder(tmp_path / "out")) == 5
    assert description_of(tmp_path / "out").known_splits() == ["train", "val"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub", "out"]


def test_columns_of_parquet(tmp_path):
    hub(tmp_path / "hub")
    run = ["convert", str(tmp_path / "hub"), "--out", str(tmp_path / "out")]
    assert main([*run, "--column", "image=image", "--column", "parts=annotation"]) == 0
    assert (tmp_path / "out/validation/parts/a_1.png").is_file()
    for words in (["--column", "seg"], ["--column", "seg=scene"], ["--column", "../x=annotation"], ["--link"]):
        assert main([*run[:2], "--out", str(tmp_path / "no"), *words]) == 2
    shard(tmp_path / "odd/train.parquet", [{"image": {"bytes": b"text", "path": None}, "mask": b"x"}])
    assert main(["convert", str(tmp_path / "odd"), "--out", str(tmp_path / "no")]) == 2
    (tmp_path / "odd/train.parquet").write_bytes(b"PAR1" + b"\0" * 90)
    assert main(["convert", str(tmp_path / "odd"), "--out", str(tmp_path / "no")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub", "odd", "out"]
