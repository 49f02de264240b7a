"""What cannot act as written, in recipes, options and command lines, is refused or told: never passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import garnish as gn
import tiny
from garnish.cli import main
from garnish.engine.adapter import Method
from garnish.errors import OptionError, SiteError
from garnish.training.resume_check import check_facts, run_facts
from garnish.training.train_options import TrainOptions

SCENES = "--data scenes --data.train 2 --data.val 1 --data.test 1 --data.size 32"
RECIPE = f"--backbone garnish_b0 {SCENES} --tasks seg --train.steps 1 --train.batch_size 1 --quiet"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles ``seg`` and ``depth``, a picture, a file, a recipe, and a run that has finished."""
    folder = tmp_path_factory.mktemp("idle")
    tasks = gn.Scenes(1, size=32, tasks=("seg", "depth")).tasks
    for name, task in tasks.items():
        gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=1), {name: task}).save(folder / name)
    Image.new("RGB", (40, 30)).save(folder / "p.png")
    (folder / "file").write_text("x")
    recipe = {"backbone": "garnish_b0", "adapter": {"name": "LoRA", "rank": 1}, "tasks": ["seg"], "out": "new"}
    recipe["data"] = {"name": "scenes", "train": 2, "val": 1, "test": 1, "size": 32}
    recipe["train"] = {"steps": 1, "batch_size": 1}
    (folder / "r.yaml").write_text(json.dumps(recipe))
    assert main(["train", "--config", str(folder / "r.yaml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"eval seg {SCENES} --tasks ,", "argument --tasks: ',' names nothing"),
        (f"eval seg {SCENES} --tasks seg,seg", "'seg' is named twice; name it once"),
        (f"eval seg {SCENES} --thresholds-on val", "thresholds_on: none of seg has thresholds to choose; leave it out"),
        (f"eval seg {SCENES} --data.test 2", "--data.test is given twice; give it once"),
        (f"eval seg {SCENES} --data other.yaml", "--data is given twice"),
        (f"eval seg {SCENES} --split val --split=test", "eval: --split is given twice"),
        ("predict seg p.png --out file", "--out file: file is a file; choose a folder"),
        ("predict seg p.png --out file/inner", "--out file/inner: file is a file; choose a folder"),
        ("predict seg p.png --out maps --tasks ,", "names nothing"),
        ("predict seg no*.png --out maps", "no*.png: no picture has such a name"),
        ("demo --out file", "--out file: file is a file"),
        ("info garnish_b0 --adapter LoRA --adapter SSF", "--adapter is given twice; give it once (several in one"),
        ("info garnish_b0 --tasks seg=Semantic,seg=Depth", "--tasks: seg is named twice"),
        ("info garnish_b0 --weights file", "comes with its own weights and sizes; use mit_b0 for other ones\n"),
        ("info garnish_bo", "unknown backbone 'garnish_bo'"),
        ("plan garnish_b0 --tasks depth=Depth --methods ,", "argument --methods: ',' names nothing"),
        ("plan garnish_b0 --tasks depth=Depth --step-time 2x --predictions 3", "--predictions does not apply"),
        ("train --config r.yaml --resume run", "reads its recipe from RUN/args.yaml, so --config does not apply"),
        ("train --resume run --out other", "goes on in the run's folder, so --out does not apply"),
        ("train --resume run --adapter.alpha 99", "was started with adapter.alpha = 16.0, not 99.0"),
        ("train --resume run --adapter.dropout 0.5", "was started with adapter.dropout = 0.0, not 0.5"),
        ("train --resume run --adapter SSF", "was started with adapter = LoRA, not SSF"),
        ("train --resume run --head SegFormerHead", "was started with head.seg = LinearHead, not SegFormerHead"),
        ("train --config r.yaml --onto ,", "with --onto: ',' names no bundle"),
        ("train --config r.yaml --onto depth --backbone.taps merged", "backbone.taps: merged, but depth has stage"),
        ("train --config r.yaml --adapter LoRA,Frozen", "Frozen: adds nothing beside LoRA; leave it out"),
        ("train --config r.yaml --adapter LoRA --adapter.alpha 0", "LoRA.alpha: with 0 nothing would be learned"),
    ],
)
def test_a_command_line_that_cannot_act_as_written_is_refused(
    line: str, says: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert sorted(place.rglob("*")) == before, "nothing was written"


def test_a_run_is_resumed_with_what_its_recipe_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(place / "run"), "--quiet"]) == 0
    assert "bundle:" in capsys.readouterr().out


def test_comparing_tells_options_that_no_run_reads(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--config", str(place / "r.yaml"), "--adapters", "LoRA", "--out", str(place / "c"), "--dry-run"]
    assert main([*words, "--held-out-every", "3", "--references", "frozen", "--reference-rates", "1e-3"]) == 0
    said = capsys.readouterr().out
    assert "held_out_every is not used: the data have a split val" in said
    assert "reference_rates are not used: no arm tunes a whole trunk" in said
    assert main([*words, "--reference-rates", "1e-3"]) == 0
    assert "not used" not in capsys.readouterr().out


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("LoRA", "alpha"),
        ("MTLoRA", "scale"),
        ("VMTAdapter", "scale"),
        ("VMTAdapterLite", "scale"),
        ("PolyhistorLite", "scale"),
        ("AdaptFormer", "scale"),
        ("Convpass", "scale"),
    ],
)
def test_a_factor_with_which_nothing_learns_is_refused(name: str, option: str) -> None:
    with pytest.raises(OptionError, match=rf"{name}\.{option}: with .* nothing would be learned; set a finite value"):
        getattr(gn, name)(**{option: 0.0})
    for value in (float("nan"), float("inf")):
        with pytest.raises(OptionError, match=rf"{name}\.{option}: expected a number from -1e\+06 to 1e\+06"):
            getattr(gn, name)(**{option: value})


def test_a_scale_in_words_is_the_one_that_is_known() -> None:
    with pytest.raises(
        OptionError,
        match=r"AdaptFormer\.scale: expected a number .* or learnable, got str 'learned'",
    ):
        gn.AdaptFormer(scale="learned")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        ([gn.Frozen(), gn.LoRA(rank=2)], "Frozen: adds nothing beside LoRA; leave it out"),
        ([gn.FullFineTuning(), gn.BitFit()], "BitFit: everything it tunes is already tuned by FullFineTuning"),
        (
            [gn.NormTuning(), gn.BitFit(), gn.NormTuning(places=("mlp",))],
            "NormTuning: everything it tunes is already tuned by",
        ),
    ],
)
def test_a_method_that_adds_nothing_beside_others_is_refused(methods: list[Method], says: str) -> None:
    trunk = tiny.backbone("vit")
    with pytest.raises(SiteError, match=says):
        gn.adapt(trunk, methods, {"depth": gn.Depth()})
    assert not trunk.is_adapted


def test_methods_that_share_a_part_of_what_they_tune_go_together() -> None:
    model = gn.adapt(tiny.backbone("vit"), [gn.BitFit(), gn.NormTuning()], {"depth": gn.Depth()})
    assert len(model.owners) == 1


# ---- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "idle"),
    [
        (gn.Semantic(classes=3), ()),
        (gn.Semantic(classes=3, f1_tolerance_px=5), ("f1_tolerance_px needs f1_class",)),
        (gn.Semantic(classes=3, f1_tolerance_px=5, f1_class=1), ()),
        (
            gn.Semantic(classes=3, cross_entropy=0.0, dice=1.0, focal_gamma=2.0, class_weights=(1.0, 2.0, 3.0)),
            ("class_weights needs cross_entropy above 0", "focal_gamma needs cross_entropy above 0"),
        ),
        (gn.Edges(tolerance_px=3), ()),
        (gn.Edges(nms=True, max_distance=0.011), ("max_distance needs protocol ods", "nms needs protocol ods")),
        (gn.Edges(protocol="ods", nms=True, tolerance_px=3), ("tolerance_px needs protocol pooled",)),
        (gn.Depth(max_metres=3.0), ()),
    ],
)
def test_options_of_a_task_that_do_nothing_beside_its_others(task: Any, idle: tuple[str, ...]) -> None:
    assert task.idle_options == idle


def test_idle_options_are_told_before_training() -> None:
    data = gn.Scenes(1, size=32, tasks=("edges",))
    tasks = {"edges": gn.Edges(nms=True)}
    model = gn.adapt(gn.backbone("garnish_b0"), gn.Frozen(), tasks)
    result = gn.fit(model, data, steps=1, batch_size=1, progress=False, log=())
    assert "task 'edges': nms needs protocol ods, so it does nothing here" in result.warnings


# ---- resuming --------------------------------------------------------------------------------------------------------


def test_older_checkpoints_and_newer_options_are_no_difference() -> None:
    torch.manual_seed(0)
    model = gn.adapt(tiny.backbone("vit"), [gn.LoRA(rank=2), gn.SSF()], {"depth": gn.Depth()})
    facts = json.loads(json.dumps(run_facts(TrainOptions(steps=1), model, {"training": None}, 1, 1, 1)))
    check_facts(facts, facts, "run")
    older = {k: v for k, v in facts.items() if k not in ("tasks", "methods", "heads")}
    check_facts(older, facts, "run")
    lacking = json.loads(json.dumps(facts))
    del lacking["methods"]["depth"][0]["options"]["rs"]
    check_facts(lacking, facts, "run")
    lacking["methods"]["depth"][1]["name"] = "Mona"
    with pytest.raises(OptionError, match=r"run: was started with adapter\.1 = Mona, not SSF"):
        check_facts(lacking, facts, "run")
    del facts["methods"]["depth"][1]
    with pytest.raises(OptionError, match=r"was started with adapter\.1 = Mona, not None"):
        check_facts(lacking, facts | {"methods": {"depth": facts["methods"]["depth"][:1]}}, "run")
