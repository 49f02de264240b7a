"""The doctor's engine: all splits, processes, what dies or raises is told; mends happen in a copy alone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from PIL import ExifTags, Image

from doctor_cases import IDS, array, jpeg, make_set, put, room
from garnish.doctor import examine as examining
from garnish.doctor.check import Check
from garnish.doctor.examine import chosen_checks, examine
from garnish.doctor.fixing import fix
from garnish.doctor.label_codes import connected_regions
from garnish.errors import DataError, OptionError
from garnish.targets.histogram import histogram_of
from garnish.tasks.task import Task


class Odd(Check):
    """Raises at one picture, kills its process at another, and keeps what cannot be sent at a third."""

    name: ClassVar[str] = "odd"
    finds: ClassVar[str] = "nothing"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        return [()]

    @classmethod
    def look(cls, seen: Any, tasks: tuple[str, ...]) -> Any:
        if seen.name == "train-03":
            raise ZeroDivisionError("no way")
        if seen.name == "train-05" and os.environ.get("DIE"):
            os.kill(os.getpid(), signal.SIGKILL)
        return (lambda: 0) if seen.name == "val-01" and os.environ.get("DIE") else None

    @classmethod
    def judge(cls, seen: Any, tasks: tuple[str, ...]) -> Any:
        raise KeyError("judged")


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("clean") / "set", {"train": 9, "val": 3, "extra": 2}).parent


def with_odd(monkeypatch):
    known = {**chosen_checks(), "odd": Odd}
    monkeypatch.setattr(examining, "chosen_checks", lambda only: {n: known[n] for n in only})


def test_a_check_that_names_a_fix_must_do_it(monkeypatch):
    class Promising(Odd):
        name: ClassVar[str] = "promising"
        fixes: ClassVar[Mapping[str, str]] = {"mend": "mends it"}

    monkeypatch.setattr(examining, "classes", lambda kind: {"Promising": Promising})
    with pytest.raises(OptionError, match=r"check Promising of .* names the fix 'mend' and has no `fixed`") as error:
        chosen_checks()
    assert "\n" not in str(error.value)
    with pytest.raises(OptionError, match="check promising: has no fix 'other'"):
        Promising.fixed("other", Path("a.png"), None, ())
    monkeypatch.setattr(Promising, "fixed", classmethod(lambda cls, fix, file, seen, tasks: b""))
    assert chosen_checks() == {"promising": Promising}


def test_what_a_set_holds(clean):
    seen = []
    found = examine(clean, jobs=1, progress=lambda done, total: seen.append((done, total)))
    assert list(found.splits) == ["train", "val", "extra"]
    assert seen == [(k, 14) for k in range(1, 15)]
    train = found.splits["train"]
    assert (train.pictures, train.looked, train.unread, dict(train.sizes)) == (9, 9, 0, {"71x53": 9})
    assert dict(train.with_labels) == {"seg": 9, "depth": 9, "normals": 9}
    ids = np.stack([room(number)["seg"] for number in range(9)])
    assert train.counts["seg"].pixels.tolist() == [int((ids == value).sum()) for value in IDS]
    assert train.counts["seg"].maps == 9
    depth = train.histograms["depth"]["distance"]
    metres = np.stack([room(number)["depth"] for number in range(9)]) / 1000
    wanted = np.histogram(metres.astype(np.float32), depth.edges)[0]
    assert depth.counts.tolist() == wanted.tolist()
    assert set(train.histograms["normals"]) == {"x", "y", "z"}
    plain = json.loads(json.dumps(found.plain()))
    assert plain["splits"]["val"]["counts"]["seg"]["shares"]["wall"] == pytest.approx(
        np.mean(np.stack([room(number)["seg"] for number in range(9, 12)]) == 40)
    )
    assert plain["tasks"] == {"seg": "Semantic", "depth": "Depth", "normals": "Normals"}


def test_limit_splits_and_checks_are_named_where_they_leave_something_out(clean):
    found = examine(clean, splits=["val"], only=["specks"], limit=2, jobs=1)
    assert (found.splits["val"].looked, found.checks) == (2, ("specks",))
    assert any("2 of 3 pictures" in line for line in found.skipped)
    assert any("specks alone" in line for line in found.skipped)
    with pytest.raises(OptionError, match="no check 'speck'; did you mean 'specks'"):
        examine(clean, only=["speck"])
    with pytest.raises(OptionError, match="no split 'vall'; did you mean 'val'"):
        examine(clean, splits=["vall"])


def test_a_file_that_cannot_be_read_is_told_once(clean, tmp_path):
    root = tmp_path / "set"
    make_set(root, {"train": 3, "val": 2})
    (root / "train/images/train-01.png").write_bytes(b"no picture")
    (root / "train/depth/train-00.png").write_bytes(b"nor this")
    put(root / "train/seg/train-02.png", array(root / "train/seg/train-02.png")[:, :50])
    found = examine(root, jobs=1)
    errors = {fault.names: fault for fault in found.errors}
    assert set(errors) == {("train-00",), ("train-01",), ("train-02",)}
    assert errors["train-01",].files == (str(root / "train/images/train-01.png"),)
    assert errors["train-00",].tasks == ("depth",)
    assert "50x53, but its picture" in errors["train-02",].message
    assert found.splits["train"].unread == 1
    assert found.splits["train"].counts["seg"].maps == 2  # of the unreadable picture the label still counts


def test_a_split_without_labels_of_a_task(tmp_path):
    root = tmp_path / "set"
    make_set(root, {"train": 2, "val": 2, "test": 1})
    for split in ("val", "test"):
        for file in (root / split / "depth").iterdir():
            file.unlink()
    found = examine(root, jobs=1)
    (error,) = found.errors
    assert (error.split, error.tasks) == ("val", ("depth",))
    assert any("(test)" in line or "'test'" in line for line in found.skipped)
    assert dict(found.splits["test"].with_labels) == {"seg": 1, "normals": 1}


def test_held_out_pictures_are_looked_at_and_copied(tmp_path):
    make_set(tmp_path / "set", {"train": 8})
    given = {
        "path": str(tmp_path / "set/train"),
        "images": "images/*.png",
        "hold_out": {"share": 0.25, "by": "picture"},
        "tasks": {"depth": {"task": "Depth", "labels": "depth/{name}.png", "unit": "mm", "max_metres": 10}},
    }
    names = {file.stem for file in (tmp_path / "set/train/images").iterdir()}
    whole = examine(given, only=["reading"], jobs=1)
    assert list(whole.splits) == ["train", "val"]
    assert sum(part.looked for part in whole.splits.values()) == 8
    assert 0 < examine(given, splits=["val"], only=["reading"], jobs=1).splits["val"].looked < 8
    for name in names:  # wherever it is, a broken label is found
        (tmp_path / f"set/train/depth/{name}.png").write_bytes(b"no label")
    broken = examine(given, only=["reading"], jobs=1)
    assert {one for fault in broken.errors for one in fault.names} == names
    fix(given, broken, tmp_path / "out")
    assert {file.stem for file in (tmp_path / "out/images").iterdir()} == names


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(DataError):
        examine(
            {"images": "images/{split}/*.png", "tasks": {"d": {"task": "Depth", "labels": "{name}.npy"}}}, root=tmp_path
        )


def test_a_check_that_raises_is_an_error_with_its_name_and_file(clean, monkeypatch):
    with_odd(monkeypatch)
    found = examine(clean, only=["odd", "specks"], jobs=1)
    (error,) = found.errors
    assert error.check == "odd"
    assert "train-03.png: the check 'odd' itself failed: ZeroDivisionError: no way (test_doctor.py:" in error.message


SCRIPT = """
    import sys, os, json
    sys.path[:0] = {paths!r}
    from test_doctor import Odd
    from garnish.doctor import examine as examining
    from garnish.doctor.examine import chosen_checks, examine
    known = {{"odd": Odd, **chosen_checks(["specks", "reading"])}}
    examining.chosen_checks = lambda only: known
    if __name__ == "__main__":
        found = examine({root!r}, jobs=2)
        print(json.dumps(found.plain()))
"""


def test_processes_find_what_one_finds_and_name_the_picture_that_ended_one(clean, tmp_path):
    """Counts of two processes are those of one; a killed process costs its own picture alone."""
    script = tmp_path / "look.py"
    paths = [str(Path(__file__).parent)]
    script.write_text(textwrap.dedent(SCRIPT.format(paths=paths, root=str(clean))), "utf-8")
    out = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, env={**os.environ, "DIE": "1"}
    )
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    errors = {(fault["check"], *fault["names"]): fault["message"] for fault in found["faults"]}
    assert "train-05.png: the process that looked at it ended by signal 9" in errors["reading", "train-05"]
    assert "ZeroDivisionError" in errors["odd", "train-03", "val-01"]
    whole = json.loads(json.dumps(examine(clean, only=["specks"], jobs=1).plain()))
    assert found["splits"]["val"]["counts"] == whole["splits"]["val"]["counts"]
    assert found["splits"]["val"]["histograms"] == whole["splits"]["val"]["histograms"]
    assert found["splits"]["train"]["counts"]["seg"]["maps"] == 8
    assert found["splits"]["train"]["looked"] == 9


def test_the_regions_are_those_of_scipy():
    from scipy import ndimage

    for seed in range(5):
        values = np.random.default_rng(seed).integers(0, 3, (23, 31))
        found = connected_regions(values)
        for value in range(3):
            groups, count = ndimage.label(values == value, structure=np.ones((3, 3)))
            wanted = np.bincount(groups.ravel())[1 : count + 1]
            assert sorted(found.sizes[found.values == value]) == sorted(wanted)
        by_pixel = found.sizes_by_pixel()
        assert by_pixel.shape == values.shape
        assert by_pixel[0, 0] == ndimage.label(values == values[0, 0], np.ones((3, 3)))[0].ravel().tolist().count(1)
    assert connected_regions(np.zeros((1, 1), int)).sizes.tolist() == [1]
    assert connected_regions(np.array([[1, 2, 1]])).sizes.tolist() == [1, 1, 1]


def test_histograms_are_those_of_numpy():
    draw = np.random.default_rng(0)
    values, edges = draw.normal(size=400), np.linspace(-1, 1, 9)
    values[:2] = (-1.0, 1.0)
    made = histogram_of(values, edges) + histogram_of(values[:10], edges)
    wanted = np.histogram(values, edges)[0] + np.histogram(values[:10], edges)[0]
    assert made.counts.tolist() == wanted.tolist()
    assert made.below == (values < -1).sum() + (values[:10] < -1).sum()
    assert made.above == (values > 1).sum() + (values[:10] > 1).sum()


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_mends_happen_in_a_copy(tmp_path):
    root = tmp_path / "set"
    make_set(root, {"train": 12, "val": 3})
    seg, depth = root / "train/seg", root / "train/depth"
    clean = {name: array(seg / f"{name}.png") for name in ("train-02", "train-04", "train-06")}
    put(seg / "train-02.png", jpeg(clean["train-02"]))
    small = Image.fromarray(clean["train-04"]).resize((43, 32), Image.Resampling.NEAREST)
    put(seg / "train-04.png", np.array(small.resize((71, 53), Image.Resampling.BILINEAR)))
    specks = clean["train-06"].copy()
    specks[4:50:5, 3:70:6] = np.where(specks[4:50:5, 3:70:6] == 90, 0, 90)
    put(seg / "train-06.png", specks)
    holes = array(depth / "train-01.png")
    holes[::5, ::7] = 65535
    put(depth / "train-01.png", holes)
    before = tree(root)
    found = examine(root, jobs=1)
    mended = fix(root, found, tmp_path / "out")
    assert tree(root) == before
    after = tree(tmp_path / "out")
    assert set(after) == set(before)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {f"train/seg/train-0{k}.png" for k in (2, 4, 6)} | {"data.yaml"}
    new = {name: array(tmp_path / f"out/train/seg/{name}.png") for name in clean}
    assert (new["train-02"] != clean["train-02"]).mean() < 0.02
    assert (new["train-04"] != clean["train-04"]).mean() < 0.04
    assert (new["train-06"] != clean["train-06"]).sum() <= 12  # of 120 specks those on a border stay
    assert set(np.unique(new["train-04"])) <= set(IDS)
    given = yaml.safe_load((tmp_path / "out/data.yaml").read_text("utf-8"))
    assert given["tasks"]["depth"]["invalid"] == [65535]
    assert given["path"] == "."
    again = examine(tmp_path / "out", jobs=1)
    assert [f for f in again.faults if f.check in ("reading", "lossy_ids", "interpolated_ids", "sentinels")] == []
    assert len(mended.done) == 4
    assert mended.copied == len(before)
    with pytest.raises(DataError, match="exists already"):
        fix(root, found, tmp_path / "out")
    with pytest.raises(DataError, match="lies within the set"):
        fix(root, found, root / "out")


@pytest.mark.parametrize(
    "task",
    [
        {"task": "Edges", "from": "boundaries"},
        {"task": "Saliency", "positive": [40, 90]},
        {"task": "Semantic", "classes": 2, "map": {90: 1}, "others": 0},
        {"task": "Semantic", "classes": ["a", "b"], "colours": {"a": [40, 40, 40], "b": [90, 90, 90]}, "others": 255},
    ],
)
def test_ids_that_the_description_does_not_list_are_not_taken_for_noise(tmp_path, task):
    root = tmp_path / "set"
    for number in range(8):
        ids = np.zeros((96, 128), np.uint8)
        ids[10 + number : 60, 20:80], ids[50:90, 60:120] = 40, 90
        put(root / f"images/{number}.png", np.repeat(ids[..., None], 3, 2))
        put(root / f"labels/{number}.png", jpeg(ids))
    given = {"path": str(root), "images": "images/*.png", "tasks": {"any": {"labels": "labels/{name}.png", **task}}}
    found = examine(given, only=["lossy_ids"], jobs=1)
    assert [fault.fix for fault in found.faults] == ["nearest"]
    mended = fix(given, found, tmp_path / "out")
    assert "does not list all that the file may hold" in mended.left[0]
    before, after = tree(root), tree(tmp_path / "out")
    assert {name: after[name] for name in before} == before


def test_a_mended_copy_is_the_whole_set(tmp_path):
    """Lists and tables wherever they lie, pictures held out, and pictures that `every` skips go along."""
    table, lists = tmp_path / "table", tmp_path / "lists"
    for split, value in (("train", 0), ("val", 1)):
        rows = []
        for number in range(4):
            name = f"{split}{number}_0"
            for root, folder in ((table, f"{split}/"), (lists, "")):
                put(root / f"{folder}{name}.png", np.full((12, 14, 3), 40 * number, np.uint8))
                put(root / f"{folder}labels/{name}.png", np.full((12, 14), value, np.uint8))
            rows.append(json.dumps({"file_name": f"{name}.png", "label": f"labels/{name}.png"}))
        (table / split / "metadata.jsonl").write_text("\n".join(rows))
    (lists / "sets").mkdir()
    names = {split: [f"{split}{number}_0" for number in range(4)] for split in ("train", "val")}
    (lists / "sets/all.json").write_text(json.dumps(names))
    task = {"task": "Semantic", "classes": 2}
    by_name = {"images": "*.png", "tasks": {"seg": {**task, "labels": "labels/{name}.png"}}}
    templates = {"images": "{split}/{file_name}", "tasks": {"seg": {**task, "labels": "{split}/{label}"}}}
    for root, given in (
        (table, {"table": "{split}/metadata.jsonl", **templates}),
        (lists, {"splits": "sets/all.json", "every": {"val": 2}, **by_name}),
        (lists, {"hold_out": 0.25, **by_name}),
    ):
        given = {"path": str(root), **given}
        found = examine(given, only=["reading"], jobs=1)
        assert list(found.splits) == ["train", "val"]
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        fix(given, found, out)
        again = examine(out, only=["reading"], jobs=1)
        assert not again.faults
        assert {split: facts.pictures for split, facts in again.splits.items()} == {
            split: facts.pictures for split, facts in found.splits.items()
        }


def turned(values: np.ndarray, orientation: int) -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(values).save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def test_a_picture_that_exif_turns_away_from_its_label(tmp_path):
    """Sizes tell where sides are swapped, and the tag is set to 1; a half turn is left to the description."""
    for number in range(6):
        made = room(number)
        (tmp_path / "images").mkdir(exist_ok=True)
        orientation = {1: 6, 4: 3}.get(number, 1)
        (tmp_path / f"images/{number}.jpg").write_bytes(turned(made["images"], orientation))
        put(tmp_path / f"seg/{number}.png", made["seg"])
    given = {
        "images": "images/*.jpg",
        "tasks": {"seg": {"task": "Semantic", "labels": "seg/{name}.png", "classes": 201}},
    }
    found = examine(given, root=tmp_path, jobs=1)
    told = {fault.names: (fault.level, fault.fix) for fault in found.faults if fault.check == "orientation"}
    assert told == {("1",): ("error", "untag"), ("4",): ("warning", None)}
    fix(given, found, tmp_path.parent / "out", root=tmp_path)
    old, new = (Image.open(root / "images/1.jpg") for root in (tmp_path, tmp_path.parent / "out"))
    assert new.getexif()[ExifTags.Base.Orientation] == 1
    assert new.getexif()[ExifTags.Base.Make] == "a camera"
    assert np.array_equal(np.asarray(old), np.asarray(new))
    again = examine(tmp_path.parent / "out", jobs=1)
    assert {fault.names for fault in again.faults if fault.check in ("orientation", "reading")} == {("4",)}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_all_processes(clean, tmp_path):
    script = tmp_path / "look.py"
    script.write_text(
        textwrap.dedent(f"""
            import sys
            from garnish.doctor.examine import examine
            if __name__ == "__main__":
                examine({str(clean)!r}, jobs=2, progress=lambda done, total: print(done, flush=True))
                print("ended", flush=True)
        """),
        "utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("processes are left")
