"""``garnish check DATA`` as it is typed: what it prints, its exit codes, its JSON, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from garnish.cli import main
from garnish.commands import check_text
from garnish.doctor.diagnosis import Diagnosis, SplitFacts
from garnish.doctor.fault import Fault
from garnish.doctor.verdict import next_steps, verdict_of

SIZE = (12, 16)


def write_set(root, sizes=None):
    rng = np.random.default_rng(5)
    for split, count in (("train", 5), ("val", 3)):
        for number in range(count):
            for kind in ("images", "masks"):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
            size = (sizes or {}).get((split, number), SIZE)
            colours = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(colours).save(root / split / "images" / f"p{number}.png")
            ids = np.zeros(size, np.uint8)
            ids[: size[0] // 2], ids[-3:, -6:] = 1, 2
            Image.fromarray(ids).save(root / split / "masks" / f"p{number}.png")
    described = {
        "path": ".",
        "images": "{split}/images/*.png",
        "tasks": {"seg": {"task": "Semantic", "labels": "{split}/masks/{name}.png", "classes": ["a", "b", "c"]}},
    }
    (root / "data.yaml").write_text(yaml.safe_dump(described))


@pytest.fixture
def root(tmp_path, monkeypatch):
    write_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "set"


def spoil(root):
    ids = np.zeros(SIZE, np.uint8)
    ids[0, :5] = 77
    Image.fromarray(ids).save(root / "val" / "masks" / "p1.png")


def refused(capsys, *words):
    assert main(["check", *map(str, words)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_a_sound_set_says_how_to_train(root, capsys):
    assert main(["check", "set", "--only", "reading"]) == 0
    out = capsys.readouterr().out
    assert "nothing wrong found in 8 pictures" in out
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["train", "5", "5", "16x12"],
        ["val", "3", "3", "16x12"],
    ]
    assert ["seg", "Semantic", "5", "3", "100.0%"] in [line.split() for line in out.splitlines()]
    step = next(line for line in out.splitlines() if line.startswith("to train: "))
    assert "garnish train --data set --backbone garnish_b0" in step


def test_the_command_it_proposes_is_one_that_train_takes(root, capsys):
    main(["check", "set", "--only", "reading"])
    step = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("to train: garnish "))
    assert main([*step.removeprefix("to train: garnish ").split(), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["steps"] == 300


def test_errors_are_told_with_file_values_and_remedy(root, capsys):
    spoil(root)
    assert main(["check", "set/data.yaml", "--page", "check.html"]) == 1
    out = capsys.readouterr().out
    lines = out.splitlines()
    place = next(k for k, line in enumerate(lines) if line.startswith("error: reading"))
    assert "set/val/masks/p1.png: label ids 77 (5 pixels)" in lines[place + 1]
    assert lines[place + 2].startswith("    → write `ignore: 77`")
    assert "to look again when the errors are mended: garnish check set/data.yaml" in out
    assert lines[-1] == "to see pictures of it: open check.html" and (root.parent / "check.html").is_file()


def test_json_is_one_document_with_all_fields(root, capsys):
    spoil(root)
    assert main(["check", "set", "--json", "--split", "val", "--split", "train", "--limit", "3"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {name: (facts["pictures"], facts["looked"]) for name, facts in told["splits"].items()} == {
        "train": (5, 3),
        "val": (3, 3),
    }
    fault = next(f for f in told["faults"] if f["check"] == "reading")
    assert fault.keys() >= {"check", "level", "message", "remedy", "split", "tasks", "files", "names", "fix"}
    assert (fault["level"], fault["split"], fault["names"]) == ("error", "val", ["p1"])
    assert sum(told["splits"]["train"]["counts"]["seg"]["shares"].values()) == pytest.approx(1)


def test_one_split_alone(root, capsys):
    spoil(root)
    assert main(["check", "set", "--split", "train", "--only", "reading"]) == 0
    assert "val" not in capsys.readouterr().out.split("\n", 1)[0]


def test_a_recipe_stands_for_its_data(root, capsys):
    (root.parent / "recipe.yaml").write_text("data: set/data.yaml\ntrain: {steps: 3}\n")
    assert main(["check", "recipe.yaml", "--only", "reading"]) == 0
    assert "is a recipe" in capsys.readouterr().err


def test_bad_calls_are_refused_before_anything_is_read(root, capsys):
    assert "nothing to look at" in refused(capsys)
    assert "DATA alone" in refused(capsys, "set", "--data", "set")
    assert "--page needs DATA" in refused(capsys, "--data", "set", "--page", "x.html")
    for option, value in (
        ("page", "x.html"),
        ("only", "reading"),
        ("jobs", 1),
        ("write", "new.yaml"),
        ("fix", "mended"),
    ):
        told = refused(capsys, "set", "--backbone", "garnish_b0", f"--{option}", value)
        assert f"--backbone looks at one split, --{option} at all" in told
    assert "DATA alone" in refused(capsys, "set", "--data", "set", "--backbone", "garnish_b0")
    assert "did you mean 'reading'?" in refused(capsys, "set", "--only", "raeding")
    assert "no folder missing" in refused(capsys, "set", "--page", "missing/check.html")
    assert "name it so, e.g. check.html" in refused(capsys, "set", "--page", "check.pdf")
    (root / "page.html").mkdir()
    assert "is a folder" in refused(capsys, "set", "--page", "set/page.html")
    assert "are drawn, not read" in refused(capsys, "scenes")
    assert "no split 'vall'" in refused(capsys, "set", "--split", "vall")
    assert "one split" in refused(capsys, "--data", "set", "--split", "train", "--split", "val")
    assert "whole number" in refused(capsys, "set", "--limit", "0")
    assert not list(root.parent.glob("*.html"))


def test_a_terminal_of_80_columns_gets_lines_that_fit(root, capsys, monkeypatch):
    spoil(root)
    monkeypatch.setattr(check_text, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    main(["check", "set"])
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def test_what_is_guessed_is_kept_and_trains(root, capsys):
    (root / "data.yaml").unlink()
    assert main(["check", "set", "--write", "guess.yaml", "--only", "reading"]) == 0
    out, err = capsys.readouterr()
    assert "guess.yaml: written" in err and "--data guess.yaml" in out
    kept = yaml.safe_load((root.parent / "guess.yaml").read_text())
    (task,) = kept["tasks"].values()
    assert task["task"] == "Semantic" and kept["path"] == "set"
    assert main(["check", "--data", "guess.yaml"]) == 0
    assert "exists" in refused(capsys, "set", "--write", "guess.yaml")


def test_a_guess_that_is_not_needed_is_refused(root, capsys):
    assert "describes the folder already" in refused(capsys, "set", "--write", "new.yaml")
    assert "is no folder" in refused(capsys, "set/data.yaml", "--write", "new.yaml")
    assert "YAML file" in refused(capsys, "set", "--write", "new.txt")
    assert "--write needs DATA" in refused(capsys, "--data", "set", "--write", "new.yaml")
    assert not (root.parent / "new.yaml").exists()


def test_a_mended_copy_trains_and_the_set_is_left_alone(root, capsys):
    (root / "val" / "depth").mkdir()
    (root / "train" / "depth").mkdir()
    described = yaml.safe_load((root / "data.yaml").read_text())
    described["tasks"]["depth"] = {"task": "Depth", "labels": "{split}/depth/{name}.npy"}
    (root / "data.yaml").write_text(yaml.safe_dump(described))
    for picture in root.glob("*/images/*.png"):
        metres = np.random.default_rng(0).uniform(1, 5, SIZE).astype(np.float32)
        metres[0, :3] = np.nan
        np.save(picture.parents[1] / "depth" / f"{picture.stem}.npy", metres)
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    assert main(["check", "set", "--only", "reading,sentinels", "--fix", "mended"]) == 1
    out = capsys.readouterr().out
    assert "mended: " in out and "to look at the copy: garnish check mended" in out
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before
    assert main(["check", "mended", "--only", "reading,sentinels"]) == 0
    assert "exists" in refused(capsys, "set", "--fix", "mended")
    assert "no folder none" in refused(capsys, "set", "--fix", "none/mended")
    assert "leave --limit out" in refused(capsys, "set", "--fix", "other", "--limit", "3")


def test_what_cannot_be_told_is_asked_and_nothing_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    for number in range(3):
        Image.fromarray(np.full((*SIZE, 3), 40 * number, np.uint8)).save(tmp_path / "set" / f"p{number}.png")
    assert main(["check", "set", "--write", "guess.yaml"]) == 2
    assert "labels" in capsys.readouterr().err and not (tmp_path / "guess.yaml").exists()


def test_the_command_that_a_question_names_shows_what_it_was_told_by(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = np.linspace(9000, 30000, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint16)
    for folder, values in (("images", np.zeros((*SIZE, 3), np.uint8)), ("depth", steps)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(values + values.dtype.type(number)).save(tmp_path / f"set/{folder}/p{number}.png")
    assert main(["check", "set"]) == 2
    asked = capsys.readouterr().err
    assert "unknown unit" in asked and "`garnish check set --write data.yaml` shows more" in asked
    assert "depth/{name}.png: Depth, " not in asked
    assert main(["check", "set", "--write", "data.yaml"]) == 2
    shown = capsys.readouterr().err
    assert "depth/{name}.png: Depth, " in shown and "6 of 6 pictures" in shown and "unknown unit" in shown
    assert "--write" not in shown and not (tmp_path / "data.yaml").exists()


def diagnosis(*faults, sizes=None):
    return Diagnosis(
        source="set",
        root="set",
        tasks={},
        splits={"train": SplitFacts(pictures=3, looked=3, sizes=sizes or {"64x48": 3})},
        faults=faults,
        checks=("reading",),
        skipped=(),
        seconds=1.0,
    )


def fault(level, **more):
    return Fault(check="reading", level=level, message="m", remedy="r", **more)


def test_the_verdict_counts_by_level():
    assert verdict_of(diagnosis()) == "nothing wrong found in 3 pictures"
    assert verdict_of(diagnosis(fault("hint"))) == "1 hint in 3 pictures"
    found = [fault("error"), fault("error"), fault("warning"), *[fault("hint")] * 4]
    assert verdict_of(diagnosis(*found)) == "2 errors, 1 warning and 4 hints in 3 pictures"


def test_next_steps_fit_what_was_found():
    (step,) = next_steps(diagnosis(fault("warning")), "my set")
    assert step.startswith("to train: garnish train --data 'my set'") and "augment" not in step
    (step,) = next_steps(diagnosis(sizes={"1280x720": 2, "700x500": 1}), "set")
    assert "--train.augment.size 480,640" in step
    mend, again = next_steps(diagnosis(fault("error", fix="x"), fault("error")), "set")
    assert mend == "to mend 1 of the 2 findings in a copy: garnish check set --fix mended"
    assert again.startswith("to look again")
    assert len(next_steps(diagnosis(fault("error", fix="x")), "set")) == 1


def test_what_is_not_shown_is_counted(capsys):
    check_text.print_diagnosis(diagnosis(*[fault("error", files=("a", "b", "c", "d", "e", "f"))] * 9), "set")
    out = capsys.readouterr().out
    assert "… and 5 more" in out and "also a, b, c and 3 more" in out and out.count("→ r") == 4
    assert "error: reading (9 findings)" in out
