"""What a run shows of itself: sheets of validation pictures, details of the best step, its page, a resume's line."""

from __future__ import annotations

import csv
import dataclasses
import html
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import garnish as gn
from garnish.cli import main
from garnish.reporting.confusion_picture import confusion_picture
from garnish.training.fit import fit
from garnish.training.run_page import command_words
from garnish.training.thinned_curves import ThinnedCurves
from training_cases import QUIET, Blobs, every, tiny

OPTIONS = {"steps": 6, "batch_size": 2, "eval_every": 2, "log_every": 1, "check_pictures": 0}
HOSTILE = "</style><script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>\"'&\u202e"


class Page(HTMLParser):
    """The elements of a page, and whether they are closed."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def links(self) -> list[str]:
        return [a[key] for _, a in self.tags for key in ("href", "src", "action", "data", "poster") if key in a]


def read_table(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three evaluations, with and without sheets."""
    out = tmp_path_factory.mktemp("shown")
    data = Blobs(every(4)), Blobs(every(7), seed=3)
    with_sheets = fit(tiny(), *data, out=out / "run", **OPTIONS, **QUIET)
    model = tiny()
    without = fit(model, *data, out=out / "plain", show=0, **OPTIONS, **QUIET)
    return with_sheets, without, data[1]


def test_sheets_at_each_evaluation(trained):
    shown, plain, _ = trained
    assert sorted(p.name for p in (shown.out / "sheets").iterdir()) == [f"step_{k:06d}.jpg" for k in (2, 4, 6)]
    assert not (plain.out / "sheets").exists() and (plain.out / "index.html").is_file()
    for file in (shown.out / "sheets").iterdir():
        with Image.open(file) as image:
            assert image.format == "JPEG" and max(image.size) <= 1700 and file.stat().st_size < 2**20


def test_looking_changes_no_number(trained):
    shown, plain, _ = trained
    assert shown.history == plain.history
    for name in ("best/weights.safetensors", "results.csv"):
        assert (shown.out / name).read_bytes() == (plain.out / name).read_bytes()
    rows = [(r.out / "log" / "scalars.csv").read_text().splitlines() for r in (shown, plain)]
    assert [row.rpartition(",")[0] for row in rows[0]] == [row.rpartition(",")[0] for row in rows[1]]  # but for speed


def test_a_sheet_shows_what_predict_gives(trained, monkeypatch):
    import garnish.training.validation_sheets as tested

    _, _, val = trained
    drawn = []
    draw = tested.contact_sheet
    monkeypatch.setattr(tested, "contact_sheet", lambda rows, **how: drawn.append((rows, how)) or draw(rows, **how))
    model = tiny()
    fit(model, Blobs(every(4)), val, out=trained[0].out.parent / "again", **OPTIONS, **QUIET)
    rows, how = drawn[-1]  # of the last step, whose tensors the model holds
    assert [len(row) for row in rows] == [5] * 4 and set(how["legend"]) <= set(model.tasks["seg"].legend())
    for row, index in zip(rows, (0, 2, 4, 6), strict=True):  # evenly spaced among seven
        sample = val[index]
        with torch.inference_mode():
            model.eval()
            raw = model(sample.image.as_subclass(torch.Tensor)[None].float() / 255, ["seg", "depth"])
        titles = [title for title, _ in row]
        assert titles == ["picture", "seg: label", "seg: predicted", "depth: label", "depth: predicted"]
        cells = dict(row)
        assert (cells["picture"] == sample.image.permute(1, 2, 0).numpy()).all()
        for name, task in model.tasks.items():
            assert (cells[f"{name}: label"] == task.paint(sample.targets[name].as_subclass(torch.Tensor))).all()
            want = task.paint(task.decode(raw[name].float())[0])
            assert (cells[f"{name}: predicted"] == want).mean() > 0.999  # rounding of batches of another size


def test_classes_agree_with_the_metric_and_with_counting(trained):
    shown, _, val = trained
    table = read_table(shown.out / "details" / "seg_confusion.csv")
    names = table[0][1:]
    counts = np.array([[int(cell) for cell in row[1:]] for row in table[1:]])
    assert [row[0] for row in table[1:]] == names == ["class 0", "class 1", "class 2"]
    # scikit-learn's definition, counted pixel by pixel of what the metric was of
    assert counts.sum() == sum(int((val[k].targets["seg"] != 255).sum()) for k in range(len(val)))
    labelled = [sum(int((val[k].targets["seg"] == c).sum()) for k in range(len(val))) for c in range(3)]
    assert counts.sum(1).tolist() == labelled
    with np.errstate(invalid="ignore"):
        iou = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
    best = shown.metrics["seg"]
    assert best["miou"] == pytest.approx(np.nanmean(iou), abs=1e-12)
    for name, value in zip(names, iou, strict=True):
        assert best[f"iou/{name}"] == pytest.approx(value, abs=1e-12, nan_ok=True)
    classes = {row[0]: row[1:] for row in read_table(shown.out / "details" / "seg_classes.csv")}
    for k, name in enumerate(names):
        found = [float(x) if x else np.nan for x in classes[name]]
        with np.errstate(invalid="ignore"):
            want = [iou[k], counts[k, k] / counts[:, k].sum(), counts[k, k] / counts[k].sum(), counts[k].sum()]
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_the_page_holds_together_and_asks_nobody(trained):
    shown, _, _ = trained
    text = (shown.out / "index.html").read_text("utf-8")
    page = Page(text)
    local = [link for link in page.links() if not link.startswith(("#", "data:"))]
    assert local and all((shown.out / link).is_file() for link in local)
    assert "details/seg_confusion.png" in local and "sheets/step_000006.jpg" in local
    assert not re.search(r"(https?:)?//", " ".join(page.links()))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy and "http" not in policy
    assert sum(tag == "svg" for tag, _ in page.tags) >= 5
    for said in ("Finished after 6 steps", "miou", "rmse", "garnish predict", "garnish eval", "LoRA", "eval_every: 2"):
        assert said in page.text, said
    steps = re.findall(r"step (\d)", page.text[page.text.index("the same at each evaluation") :])
    assert steps[:3] == ["6", "4", "2"]  # the newest first


def test_what_strangers_wrote_is_text_on_the_page(tmp_path):
    tasks = {"seg": gn.Semantic(classes=("a", "b", HOSTILE))}

    class Named(Blobs):
        tasks = property(lambda self: tasks)

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return dataclasses.replace(sample, name=f"{HOSTILE}{index}")

    options = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
    model = gn.adapt(gn.backbone("vit_tiny_patch16_224", options=options), gn.LoRA(rank=2), tasks)
    data = Named([["seg"]] * 4)
    recipe = {"train": {"steps": 6}, "data": HOSTILE}
    result = fit(model, data, data, out=tmp_path / "<i>run", recipe=recipe, **OPTIONS, **QUIET)
    text = (result.out / "index.html").read_text("utf-8")
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"i", "iframe", "object"}) and "onerror" not in str(page.tags)
    assert [a for tag, a in page.tags if tag == "script"] == [{}] and "\u202e" not in text
    assert "alert(1)" in page.text


def test_the_page_is_drawn_before_the_end_and_a_failure_is_one_warning(tmp_path, monkeypatch, capsys):
    import garnish.training.run_report as tested

    seen = []
    write = tested.run_page
    monkeypatch.setattr(tested, "run_page", lambda *given, **how: seen.append(given[1].step) or write(*given, **how))
    fit(tiny(), Blobs(every(4)), Blobs(every(2)), out=tmp_path / "a", **OPTIONS, **QUIET)
    assert seen == [2, 4, 6, 6]

    def broken(*_, **__):
        raise ValueError("no\nroom")

    monkeypatch.setattr(tested, "run_page", broken)
    monkeypatch.setattr(tested.ValidationSheets, "look", broken)
    result = fit(tiny(), Blobs(every(4)), Blobs(every(2)), out=tmp_path / "b", **OPTIONS, **QUIET)
    about = [line for line in result.warnings if "cannot be drawn" in line]
    assert about == ["the run's page or pictures cannot be drawn (no room); training goes on"]
    assert capsys.readouterr().err.count("cannot be drawn") == 1 and result.steps == 6
    assert not (result.out / "index.html").exists()


def test_a_resumed_run_says_from_where_and_shows_all_of_it(tmp_path, capsys):
    data = Blobs(every(4)), Blobs(every(5), seed=3)
    half = {**OPTIONS, "schedule": "constant", "warmup": 0}
    whole = fit(tiny(), *data, out=tmp_path / "whole", **half, **QUIET)
    killed = Blobs(every(5), seed=3)

    class Stop(Exception):
        pass

    class Breaking(Blobs):
        def __getitem__(self, index):
            if self.reads > 13:  # in the third evaluation
                raise Stop
            return super().__getitem__(index)

    with pytest.raises(Stop):
        fit(tiny(), data[0], Breaking(every(5), seed=3), out=tmp_path / "run", **half, **QUIET)
    text = (tmp_path / "run" / "index.html").read_text("utf-8")
    assert f"fit(…, resume='{tmp_path / 'run'}')" in html.unescape(text) and "Step 4 of 6" in text
    capsys.readouterr()
    again = fit(tiny(), data[0], killed, resume=tmp_path / "run", **half, **QUIET | {"progress": True})
    said = capsys.readouterr().err
    state = tmp_path / "run" / "last" / "state.safetensors"
    assert re.search(rf"going on from step 6 of 6 \({re.escape(str(state))}, saved 20..-..-.. ..:.., just now\)", said)
    assert re.search(r"; best so far: step \d, seg miou 0\.\d+  depth rmse", said)
    assert again.history == whole.history
    first, second = (Page((run.out / "index.html").read_text("utf-8")) for run in (whole, again))
    assert [tag for tag, _ in first.tags] == [tag for tag, _ in second.tags]
    done = fit(tiny(), data[0], killed, resume=tmp_path / "run", **half, **QUIET | {"progress": True})
    assert done.steps == 6 and "the run has ended at step 6 of 6" in capsys.readouterr().err


def test_pictures_reach_tensorboard_as_they_are(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = OPTIONS | QUIET | {"log": ("tensorboard",)}
    result = fit(tiny(), Blobs(every(4)), Blobs(every(2)), out=tmp_path / "run", **options)
    read = events.EventAccumulator(str(result.out / "log"), size_guidance={"images": 0})
    read.Reload()
    assert read.Tags()["images"] == ["validation"]
    for event in read.Images("validation"):
        file = result.out / "sheets" / f"step_{event.step:06d}.jpg"
        assert event.encoded_image_string == file.read_bytes()
        with Image.open(file) as image:
            assert (event.width, event.height) == image.size


def test_the_command_prints_the_classes_and_eval_writes_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data", "scenes", "--data.train", "4", "--data.val", "3", "--data.size", "64"]
    short = ["--tasks", "seg,depth", "--train.steps", "2", "--train.batch_size", "2", "--train.check_pictures", "0"]
    assert main(["train", "--backbone", "garnish_b0", *data, *short, "--out", "run", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"seg: class +IoU +precision +recall +pixels", out) and "iou/" not in out
    assert re.search(r"^backdrop +\d\.\d{3} ", out, re.M) and "\npage: run/index.html\ntry it: garnish predict" in out
    page = Page(Path("run/index.html").read_text("utf-8"))
    command = next(line for line in page.text.splitlines() if line.startswith("garnish eval"))
    assert command == "garnish eval run/best --data scenes --data.train 4 --data.val 3 --data.size 64 --split val"
    assert main([*command.split()[1:], "--out", "found"]) == 0
    assert "tables and pictures: found" in capsys.readouterr().out
    names = {"depth_by_distance.csv", "seg_classes.csv", "seg_confusion.csv", "seg_confusion.png"}
    assert {p.name for p in Path("found").iterdir()} == names
    table = read_table(Path("found/seg_confusion.csv"))
    before = read_table(Path("run/details/seg_confusion.csv"))
    assert table[0] == before[0] and sum(map(int, table[1][1:])) == sum(map(int, before[1][1:]))  # rounded to float16


@pytest.mark.parametrize("classes", [2, 19, 150])
def test_a_confusion_is_readable_for_any_number_of_classes(classes):
    rng = np.random.default_rng(classes)
    counts = rng.integers(0, 1000, (classes, classes)) * (rng.random((classes, classes)) < 0.2)
    counts[0] = 0
    np.fill_diagonal(counts[1:, 1:], 5000)
    names = [f"a class of number {k} with a long name" * (k % 3) or "x" for k in range(classes)]
    drawn = confusion_picture(names, counts)
    side = (drawn.height - 20 - drawn.info.get("top", 0)) / classes
    assert side >= 11 and max(drawn.size) < 3200
    pixels = np.asarray(drawn).astype(int)
    green = ((pixels[..., 1] > pixels[..., 0] + 20) & (pixels[..., 1] > pixels[..., 2])).any(0).sum()
    assert green > 5 * classes  # the diagonal runs through all columns


def test_curves_stay_small_and_keep_their_ends():
    curves = ThinnedCurves()
    for step in range(1, 100_001):
        curves.add(step, {"loss": 1 / step} | ({"rare": float(step)} if step == 1 else {}))
    points = curves.of("loss")
    assert 512 <= len(points) <= 1026 and points[0] == (1, 1.0) and points[-1] == (100_000, 1e-5)
    assert [value for _, value in points] == [1 / step for step, _ in points]
    assert max(b - a for (a, _), (b, _) in pairwise(points)) <= 128
    assert curves.of("rare") == [(1, 1.0)] and curves.of("none") == []


def test_data_in_words():
    assert command_words("a b.yaml") == ["a b.yaml"]
    words = ["scenes", "--data.train", "4", "--data.style", "demo"]
    assert command_words({"name": "scenes", "train": 4, "style": "demo"}) == words
    assert (
        command_words({"name": "scenes", "tasks": ["seg"]})
        is command_words({"path": "x"})
        is command_words(None)
        is None
    )
