"""``garnish train --resume`` means the same from every folder, and goes on with nothing but the data it began with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from garnish.bundles.checkpoint import load_state, save_state
from garnish.cli import main
from garnish.training import run as whole_run

OPTIONS = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
DESCRIPTION = (
    'path: set\nimages: images/*\ntasks:\n  seg: {task: Semantic, labels: "masks/{name}.png", classes: [a, b]}\n'
)

pytestmark = pytest.mark.usefixtures("one_thread")


def write_set(root: Path, count: int, prefix: str = "p") -> None:
    """A folder with a description, pictures and masks, each file of its own size."""
    for place in ("images", "masks"):
        (root / "set" / place).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
            root / f"set/images/{prefix}{number}.png"
        )
        Image.fromarray(np.eye(32, 32, number, dtype=np.uint8)).save(root / f"set/masks/{prefix}{number}.png")
    (root / "d.yaml").write_text(DESCRIPTION)


@pytest.fixture
def project(tmp_path, mit_weights, monkeypatch):
    """A project folder in which a run of four steps was cut off after two; all of its paths are relative."""
    root = tmp_path / "project"
    write_set(root, 4)
    shutil.copy(mit_weights, root / "tiny.safetensors")
    recipe = {
        "backbone": {"name": "mit_b0", "weights": "tiny.safetensors", "options": OPTIONS},
        "adapter": {"name": "LoRA", "rank": 2},
        "head": "LinearHead",
        "data": "d.yaml",
        "train": {"steps": 4, "batch_size": 1, "save_every": 1, "log": [], "variants": 1, "cache": "kept"}
        | {"check_pictures": 0},
        "out": "runs/first",
    }
    recipe["adapter"] = {"name": "Frozen"}
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(root)
    assert main(["train", "--config", "recipe.yaml", "--out", "runs/unbroken", "--quiet"]) == 0
    inner = whole_run.Run.finish_step

    def cut(self, *given):
        inner(self, *given)
        if self.state.step == 2:
            raise SystemExit(9)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(whole_run.Run, "finish_step", cut)
        main(["train", "--config", "recipe.yaml", "--quiet"])
    return root


def resume(run: Path | str, *words: str) -> int:
    return main(["train", "--resume", str(run), "--quiet", *words])


def assert_as_unbroken(run: Path, unbroken: Path) -> None:
    for name in ("weights.safetensors", "bundle.json"):
        assert (run / "best" / name).read_text("latin-1").replace("runs/first", "runs/unbroken") == (
            unbroken / "best" / name
        ).read_text("latin-1")
    assert load_state(run / "last/state.safetensors")[1]["state"]["step"] == 4


def test_from_anywhere_and_moved_together_with_its_data(project, tmp_path, monkeypatch, capsys):
    unbroken = project / "runs/unbroken"
    written = yaml.safe_load((project / "runs/first/args.yaml").read_text())
    assert written["base"] == "../.." and written["data"] == "d.yaml" and written["out"] == "runs/first"
    for number, (place, asked) in enumerate((("/", "absolute"), ("project/runs", "relative"), ("project", "relative"))):
        tree = tmp_path / f"moved{number}"
        shutil.copytree(project, tree / "project", copy_function=shutil.copyfile)
        monkeypatch.chdir(tree / place if place != "/" else "/")
        run = tree / "project/runs/first"
        assert resume(run if asked == "absolute" else run.relative_to(Path.cwd())) == 0, capsys.readouterr().err
        assert_as_unbroken(run, unbroken)
        assert not (tree / place / "kept").exists() or place == "project", "the cache stays where it was"
        assert str(tmp_path) not in (run / "best/bundle.json").read_text()


def test_other_data_in_the_current_folder_are_not_taken(project, tmp_path, monkeypatch, capsys):
    write_set(tmp_path / "other", 9, "q")
    monkeypatch.chdir(tmp_path / "other")
    assert resume(project / "runs/first") == 0
    assert_as_unbroken(project / "runs/first", project / "runs/unbroken")


def refused(capsys, run: Path, *words: str) -> str:
    """The error, in one line; before it there may be one of the data, which have no split val."""
    capsys.readouterr()
    assert resume(run, *words) == 2
    *before, error = capsys.readouterr().err.splitlines()
    assert error.startswith("garnish: ") and all("(train): no split val: " in line for line in before)
    return error


def test_moved_or_changed_data_are_refused_and_the_remedy_works(project, tmp_path, monkeypatch, capsys):
    run = project / "runs/first"
    shutil.move(project / "d.yaml", tmp_path / "d.yaml")
    shutil.move(project / "set", tmp_path / "set")
    write_set(tmp_path / "other", 4, "q")
    monkeypatch.chdir(tmp_path / "other")
    told = refused(capsys, run)
    assert (
        f"data: there is no {project}/d.yaml, where the run was started with d.yaml; if it was moved, give --data"
        in told
    )
    assert "(names of pictures); give those that it was started with (--data, or" in refused(
        capsys, run, "--data", "d.yaml"
    )
    picture = tmp_path / "set/images/p0.png"
    whole = picture.read_bytes()
    picture.write_bytes((tmp_path / "other/set/images/q1.png").read_bytes() + b"\0")
    assert "other training data (sizes of picture files)" in refused(capsys, run, "--data", "../d.yaml")
    picture.write_bytes(whole)
    (project / "tiny.safetensors").rename(tmp_path / "w.safetensors")
    assert "backbone.weights: there is no " in refused(capsys, run, "--data", "../d.yaml")
    assert resume(run, "--data", "../d.yaml", "--backbone.weights", "../w.safetensors") == 0
    assert load_state(run / "last/state.safetensors")[1]["state"]["step"] == 4


def test_runs_of_earlier_versions_go_on_with_a_line(project, capsys):
    run = project / "runs/first"
    args = (run / "args.yaml").read_text().splitlines(keepends=True)
    (run / "args.yaml").write_text("".join(line for line in args if not line.startswith("base")))
    tensors, facts = load_state(run / "last/state.safetensors")
    save_state(
        run / "last/state.safetensors",
        tensors,
        {k: v for k, v in facts.items() if k not in ("data", "methods", "heads", "tasks")},
    )
    capsys.readouterr()
    assert resume("runs/first") == 0
    assert "wrote it without facts about its data; check that they are the same" in capsys.readouterr().err
    assert_as_unbroken(run, project / "runs/unbroken")


def test_a_base_that_is_no_folder_name(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(json.dumps({"base": 3, "data": "d.yaml"}))
    assert main(["train", "--config", str(tmp_path / "recipe.yaml")]) == 2
    assert "base: 3; name the folder where the recipe's paths start" in capsys.readouterr().err
