"""Options of a run that cannot act as written are refused or told, each once; the others are not mentioned."""

from __future__ import annotations

import dataclasses

import pytest

import garnish as gn
from garnish.errors import OptionError
from garnish.training.fit import fit
from garnish.training.idle_options import Circumstances, refuse_endless_warmup, unheeded
from garnish.training.train_options import TrainOptions
from training_cases import QUIET, Blobs, every, tiny

SHORT = {"batch_size": 4, "check_pictures": 0, **QUIET}
USUAL = Circumstances(
    total_steps=1000, eval_every=100, has_val=True, has_folder=True, trains_trunk=True, processes=1, device="cuda",
)  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {"eval_every": 2},
        {"eval_batch_size": 2},
        {"eval_size": (32, 32)},
        {"eval_limit": 1},
        {"best_by": "seg"},
        {"patience": 1},
        {"eval_every": 2, "eval_limit": 1},
    ],
    ids=str,
)
def test_what_judges_needs_validation_pictures(given, tmp_path):
    named = ", ".join(given)
    with pytest.raises(OptionError, match=f"^train: {named} needs? validation data, and there are none; give val"):
        fit(tiny(), Blobs(every(4)), out=tmp_path / "run", steps=2, **given, **SHORT)
    assert not (tmp_path / "run").exists()


def test_the_command_says_so_too(tmp_path, capsys):
    from garnish.cli import main
    from test_cli import write_pictures

    write_pictures(tmp_path, "train", 2)
    (tmp_path / "data.yaml").write_text(
        f"path: {tmp_path}\nimages: images/{{split}}/*.png\n"
        "tasks: {seg: {task: Semantic, labels: 'ids/{split}/{name}.png', classes: [low, high]}}\n"
    )
    words = ["train", "--data", str(tmp_path / "data.yaml"), "--backbone", "garnish_b0", "--adapter", "Frozen"]
    words += ["--train.steps", "2", "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*words, "--train.eval_every", "1"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("garnish: train: eval_every needs validation data")
    assert "no split val" in told[0] and "--data.hold_out 0.2" in told[0]
    assert main(words) == 0  # the remedy: left out


@pytest.mark.parametrize("warmup", [10, 11, 500])
def test_a_warm_up_that_never_ends_is_refused(warmup):
    with pytest.raises(OptionError, match=f"^train.warmup: {warmup} steps, but the run has 10.*set fewer than 10"):
        fit(tiny(), Blobs(every(4)), steps=10, warmup=warmup, **SHORT)
    refuse_endless_warmup(TrainOptions(steps=10, warmup=9), 10)  # the remedy
    refuse_endless_warmup(TrainOptions(steps=1, warmup=0), 1)
    refuse_endless_warmup(TrainOptions(steps=1), 1)


@pytest.mark.parametrize(
    ("given", "about", "said"),
    [
        ({"cache_gb": 2.0}, {}, "train.cache_gb: 2.0 has no effect, because there is no cache"),
        ({"augment": None, "variants": 3}, {}, "train.variants: 3 has no effect, because augment is null"),
        ({"head_lr": 0.1, "lr": 0.2}, {"trains_trunk": False}, "train.lr: 0.2 has no effect, because heads alone"),
        ({"checkpointing": True}, {"trains_trunk": False}, "train.checkpointing: True has no effect"),
        ({"compile": True}, {"device": "cpu"}, "train.compile: true is worth little on a CPU"),
        ({"memory": "fast"}, {"trains_trunk": False}, "train.memory: fast has no effect, because nothing in the back"),
        ({"save_every": 7}, {"has_folder": False}, "train.save_every: 7 has no effect, because the run has no folder"),
        ({"log_every": 7}, {"has_folder": False}, "train.log_every: 7 has no effect"),
        ({"show": 7}, {"has_folder": False}, "train.show: 7 has no effect, because the run has no folder"),
        ({"show": 7}, {"has_val": False}, "train.show: 7 has no effect, because there are no validation pictures"),
        ({"log": ("csv", "wandb")}, {"has_folder": False}, "train.log: ('csv', 'wandb') has no effect"),
        ({"strategy": "ddp", "accelerator": "mps"}, {}, "train.strategy: ddp has no effect"),
        ({"devices": 4}, {"processes": 2}, "train.devices: 4, but torchrun started 2"),
        ({"eval_every": 1001}, {"eval_every": 1001}, "train.eval_every: 1001 is beyond the run's 1000 steps"),
        ({"log_every": 1001}, {}, "train.log_every: 1001 is beyond"),
        ({"save_every": 1001}, {}, "train.save_every: 1001 is beyond the run's 1000 steps: it is saved at each eval"),
        (
            {"save_every": 1001},
            {"has_val": False},
            "train.save_every: 1001 is beyond the run's 1000 steps: it is saved at",
        ),
        (
            {"patience": 10},
            {},
            "train.patience: 10 never ends the run, which has 10 evaluations; lower it, or eval_every",
        ),
    ],
    ids=str,
)
def test_what_has_no_effect_is_told_in_one_line(given, about, said):
    (line,) = unheeded(TrainOptions(steps=1000, **given), dataclasses.replace(USUAL, **about))
    assert line.startswith(said) and "\n" not in line


@pytest.mark.parametrize(
    ("given", "about"),
    [
        ({}, {}),
        ({}, {"has_folder": False, "trains_trunk": False, "has_val": False}),
        ({"batch_size": "auto", "memory_gb": 2.0}, {}),
        ({"memory_gb": 2.0}, {"trains_trunk": False}),  # pictures and heads are bounded
        ({"memory": "least"}, {}),
        ({"cache": "kept", "variants": 1, "augment": None, "cache_gb": 2.0}, {}),
        ({"head_lr": 0.1, "lr": 0.2, "checkpointing": True}, {}),
        ({"save_every": 1000, "log_every": 1000, "eval_every": 1000}, {"eval_every": 1000}),
        ({"patience": 9}, {}),
        ({"compile": True}, {"trains_trunk": False}),  # the frozen trunk runs compiled as well
        ({"log": ("csv",)}, {"has_folder": False}),
        ({}, {"total_steps": 10, "eval_every": 1}),  # a default that is beyond the end is nobody's wish
        ({"devices": "auto"}, {"processes": 2}),
    ],
    ids=str,
)
def test_nothing_is_said_of_options_that_act(given, about):
    assert unheeded(TrainOptions(steps=1000, **given), dataclasses.replace(USUAL, **about)) == []


def test_patience_that_is_told_would_indeed_not_have_ended_the_run():
    """With an lr of next to nothing every evaluation after the first is no better."""
    data, options = Blobs(every(4)), {"steps": 4, "eval_every": 1, "lr": 1e-30, **SHORT}
    told = fit(tiny(), data, Blobs(every(1)), patience=4, **options)
    assert told.stopped == "finished" and len(told.warnings) == 1 and "train.patience: 4 never ends" in told.warnings[0]
    lowered = fit(tiny(), data, Blobs(every(1)), patience=3, **options)
    assert lowered.stopped == "early" and lowered.warnings == []


def test_fit_tells_it_with_what_came_out(tmp_path):
    result = fit(
        tiny(gn.Frozen()), Blobs(every(4)), out=tmp_path / "run", epochs=2, save_every=3, checkpointing=True,
        cache_gb=1, **SHORT,
    )  # fmt: skip
    assert [line.split(":")[0] for line in result.warnings] == [
        "train.cache_gb", "train.checkpointing", "train.save_every",
    ]  # fmt: skip
