"""What a data set is, for a run that is resumed: the same wherever the set lies, another as soon as the set is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import garnish as gn
from garnish.data.identity import changed_aspect, identity
from garnish.data.subset import Subset
from training_cases import PARTIAL, Blobs

TASKS: dict[str, Any] = {"seg": {"task": "Semantic", "labels": "masks/{name}.png", "classes": ["thing", "other"]}}


def write(root: Path, names: str = "abc") -> Path:
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
        for number, name in enumerate(names):
            shape = (8, 12, 3) if place == "images" else (8, 12)
            Image.fromarray(np.full(shape, number % 2, np.uint8)).save(root / place / f"{name}.png")
    return root


def opened(root: Path, **changed: Any):
    return gn.folder({"path": str(root), "images": "images/*", "tasks": TASKS, **changed}, "all")


def test_a_copy_elsewhere_is_the_same_set(tmp_path, monkeypatch):
    before = identity(opened(write(tmp_path / "one")))
    shutil.copytree(tmp_path / "one", tmp_path / "two/deep", copy_function=shutil.copyfile)  # with times of its own
    assert identity(opened(tmp_path / "two/deep")) == before
    monkeypatch.chdir(tmp_path / "two")
    assert identity(opened(Path("deep"))) == before and changed_aspect(before, before) == ""
    assert str(tmp_path) not in str(before)


def recoloured(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 12, 3)).astype(np.uint8)
    Image.fromarray(noise).save(root / "images/b.png")


def other_label(root: Path) -> None:
    Image.fromarray(np.eye(8, 12, dtype=np.uint8)).save(root / "masks/b.png")


CHANGES = {
    "number of pictures: 3, now 2": lambda root: (root / "images/c.png").unlink(),
    "names of pictures": lambda root: [(root / p / "c.png").rename(root / p / "d.png") for p in ("images", "masks")],
    "sizes of picture files": recoloured,
    "sizes of label files": other_label,
    "names of label files": lambda root: (root / "masks/c.png").unlink(),
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_changed_set_is_another(tmp_path, told):
    before = identity(opened(write(tmp_path / "set")))
    CHANGES[told](tmp_path / "set")
    assert changed_aspect(before, identity(opened(tmp_path / "set"))) == told


def test_other_descriptions_are_other_sets(tmp_path):
    before = identity(opened(write(tmp_path / "set")))
    renamed = {"seg": {**TASKS["seg"], "classes": ["other", "thing"]}}
    assert changed_aspect(before, identity(opened(tmp_path / "set", tasks=renamed))) == "tasks and their classes"
    weighed = {"seg": {**TASKS["seg"], "weight": 2.0}}  # of the loss, which the model's task says
    assert identity(opened(tmp_path / "set", tasks=weighed)) == before
    ignored = {"seg": {**TASKS["seg"], "ignore": [1]}}
    assert changed_aspect(before, identity(opened(tmp_path / "set", tasks=ignored))) == "ways of reading labels"


def test_sets_of_sets_and_scenes(tmp_path):
    whole = opened(write(tmp_path / "set", "abcd"))
    assert changed_aspect(identity(Subset(whole, [0, 1])), identity(Subset(whole, [1, 0]))) == "names of pictures"
    joined = gn.join(Subset(whole, [0, 1]), Subset(whole, [2, 3]))
    assert identity(joined) == identity(whole)
    assert changed_aspect(identity(gn.Scenes(3, seed=1)), identity(gn.Scenes(3, seed=2))) == "scenes"
    assert changed_aspect(identity(gn.Scenes(3, size=32)), identity(gn.Scenes(3, size=64))) == "scenes"
    assert identity(Blobs(PARTIAL)) == identity(Blobs(PARTIAL, seed=5))  # of which nothing more can be known
