"""docs/tour.md: what it says is called is called, in its order, and a hop that is not there is found."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import exported_folders
import garnish as gn
from garnish.runtime import Session

PAGE = Path(__file__).parents[1] / "docs" / "tour.md"
SRC = Path(gn.__file__).parent


def hops(page: str) -> dict[str, list[tuple[str, str]]]:
    """Heading → (file, function) of each row below it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif row := re.match(r"\| `([^`]+)` \| `([^`]+)` \| \S", line):
            found.setdefault(heading, []).append((row[1], row[2]))
    return found


def calls(run: Callable[[], object]) -> list[tuple[str, str]]:
    """(file, function) of every call of ours that ``run`` makes, in this thread."""
    found = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(str(SRC)):
            file = Path(frame.f_code.co_filename).relative_to(SRC).as_posix()
            found.append((file, frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def missing(wanted: list[tuple[str, str]], called: list[tuple[str, str]]) -> tuple[str, str] | None:
    """The first hop that is not called after the one before it."""
    at = iter(called)
    return next((hop for hop in wanted if hop not in at), None)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind, high, shape in (("images", 255, (64, 64, 3)), ("labels", 3, (64, 64))):
            (tmp_path / kind / split).mkdir(parents=True)
            for number in range(2):
                pixels = generator.integers(0, high, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / kind / split / f"{number}.png")
    return tmp_path


def one_picture(folder: Path) -> Callable[[], object]:
    data = gn.folder(folder, "train")
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), data.tasks)
    return lambda: gn.fit(model, data, steps=1, batch_size=2, out=folder / "run", workers=0, progress=False)


def one_bundle(folder: Path) -> Callable[[], object]:
    gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3)}).save(folder / "bundle")
    return lambda: gn.load(folder / "bundle").predict(folder / "images/val/0.png").write(folder / "maps")


def one_exported(folder: Path) -> Callable[[], object]:
    exported_folders.merged(folder / "exported")
    return lambda: Session(folder / "exported").predict(folder / "images/val/0.png").write(folder / "maps")


def one_mixed_batch(_: Path) -> Callable[[], object]:
    trunk = gn.backbone("garnish_b0")
    model = gn.adapt(trunk, gn.LoRA(per_task=True), {"seg": gn.Semantic(classes=3), "depth": gn.Depth()}).eval()
    return lambda: model(torch.rand(3, 3, 64, 64), tasks=[["seg"], ["depth"], ["seg", "depth"]])


RUNS = {
    "One picture, from file to loss": one_picture,
    "One bundle, from disk to a map": one_bundle,
    "One exported folder, to a map": one_exported,
    "One mixed batch, through the trunk": one_mixed_batch,
}


@pytest.mark.parametrize("heading", RUNS)
def test_each_hop_is_made_in_its_order(heading, folder):
    wanted = hops(PAGE.read_text("utf-8"))[heading]
    called = calls(RUNS[heading](folder))
    assert missing(wanted, called) is None
    assert missing([*wanted, wanted[0]], called) == wanted[0]  # a hop out of its order would be found


def test_every_table_is_run():
    assert hops(PAGE.read_text("utf-8")).keys() == RUNS.keys()
