"""``benchmarks/training``: what its numbers are of, that its arms compute the same, and what it keeps."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import garnish as gn

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tool(monkeypatch):
    """A module of the tool by its name."""
    for folder in ("tools", "benchmarks", "benchmarks/training"):
        monkeypatch.syspath_prepend(ROOT / folder)
    return importlib.import_module


def test_arms_step_in_turn_and_warming_up_does_not_count(tool):
    said = []

    def step(name):
        said.append(name)
        return float(len(said) - 1)

    taken = tool("measure").in_turn({n: lambda n=n: step(n) for n in "ab"}, rounds=3, warm_up=1)
    assert said == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert taken == {"a": [3, 4, 7], "b": [2, 5, 6]}


def test_ratios_are_taken_within_rounds(tool):
    facts = {
        "fast": {"bytes": {"kept": 100, "peak": 200}},
        "lean": {"bytes": {"kept": 60, "peak": 150}},
    }
    found = tool("measure").compared({"fast": [1.0, 2.0, 4.0], "lean": [1.1, 3.0, 4.0]}, facts)
    assert found == {"fast": {"lean": {"step": [1.05, 1.1, 1.3], "kept": 0.6, "peak": 0.75}}}


def test_bytes_by_hand(tool):
    arms, stepping = tool("arms"), tool("stepping")
    layer, held = nn.Linear(3, 5, bias=False), []

    def maps(images):
        held[:] = [torch.zeros(7)]  # 28 bytes that stay between steps
        yield layer(images)

    x = torch.rand(2, 3)
    found = stepping.Stepper(arms.Arm(maps, [layer.weight], [layer.weight]), x).bytes()
    # the map of 2 x 5, for its square's derivative, and the loss; neither the weight nor the input
    assert found["kept"] == 4 * 10 + 4 + 28
    assert found["gradients"] == 4 * 15
    assert found["left"] == 28
    # the gradient of the map is there when that of the weight is made
    assert found["peak"] >= 4 * 10 + 4 + 28 + 4 * 15
    assert layer.weight.grad is None


@pytest.mark.reference
@pytest.mark.parametrize("label", ["ViT-S", "Swin-T", "ConvNeXt-T"])
def test_arms_compute_the_same(tool, label):
    pytest.importorskip("peft")
    arms = tool("arms")
    case = arms.TINY[label]
    model = arms.garnish_model(case, "LoRA", {"rank": 2})
    ours = arms.garnish_arm(model)
    plain = arms._timm_model(case)
    state = {model.backbone.source_names[n]: t for n, t in model.backbone.frozen_tensors().items()}
    missing = plain.load_state_dict(state, strict=False).missing_keys
    assert not [name for name in missing if "block" in name]
    theirs = arms._plain_arm(arms._peft(plain, gn.LoRA(rank=2), case), plain, case, None)
    assert sum(p.numel() for p in ours.trained) == sum(p.numel() for p in theirs.trained)
    x = case.pictures("cpu")
    with torch.no_grad():  # at the start adapters change nothing
        pairs = list(zip(ours.maps(x), theirs.maps(x), strict=True))
    for mine, other in pairs:
        assert mine.shape == other.shape and bool(other.any())
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_arms_that_would_not_be_alike_are_left_out_with_the_reason(tool):
    arms = tool("arms")

    def why(arm, label, method, options):
        with pytest.raises(arms.LeftOutError) as caught:
            arms.build(arm, arms.TINY[label], method, options, "", "cpu")
        return str(caught.value)

    assert "linear layers" in why("peft", "ViT-S", "LoRA", {"layers": ["qkv"]})
    assert "linear layers" in why("peft", "ViT-S", "BitFit", {})
    assert "not timm's" in why("full", "MiT-B0", "LoRA", {})
    assert "trains nothing" in why("old", "MiT-B0", "Frozen", {})
    assert "prompt tokens" in why("old", "MiT-B0", "VPT", {})


def test_levels_reach_the_trunk(tool):
    arms = tool("arms")

    class Settable(nn.Module):
        memory = "lean"

    class Older(nn.Module):
        checkpointing = False

    trunk, older = Settable(), Older()
    arms.set_levels(trunk, ("lean", "least"))
    assert trunk.memory == ("lean", "least")
    arms.set_levels(older, "fast")
    assert not older.checkpointing
    arms.set_levels(older, "least")
    assert older.checkpointing
    with pytest.raises(arms.LeftOutError, match="lean"):
        arms.set_levels(older, "lean")


class Answering:
    """A worker of a tree; a step takes 2 s where it is ``lean``, else 4; ``peft`` cannot be built."""

    def __init__(self, tree, script):
        self.arm = None

    def ask(self, what, *given):
        if what == "Build":
            self.arm, self.levels = given[0], given[4]
            return None
        if what == "step":
            return 2.0 if self.arm == "lean" else 4.0
        if self.arm == "peft":
            return {"left_out": "not today"}
        share = {"fast": 4, "bound": 1}.get(self.arm, 2)
        held = {"kept": share * 10**6, "peak": share * 10**7, "gradients": 10**6, "left": 0}
        return {"bytes": held, "trained": 5, "maps": [[1, 2]], "levels": self.levels}

    def close(self):
        pass


def run(tool, monkeypatch, *given):
    measure = tool("measure")
    monkeypatch.setattr(measure, "Worker", Answering)
    measure.main(given)


def test_cases_are_merged_with_what_they_were_measured_with(tool, monkeypatch, tmp_path, capsys):
    out = tmp_path / "results.json"
    given = ["--arms", "fast", "lean", "bound", "peft", "old", "--rounds", "2", "--out", str(out)]
    run(tool, monkeypatch, *given, "--method.rank", "4", "--levels", "lean,least")
    run(tool, monkeypatch, *given, "--trunks", "MiT-B0", "--method", "SSF", "--old", str(ROOT))
    found = json.loads(out.read_text("utf-8"))
    assert list(found) == ["arms/MiT-B0/SSF", "arms/ViT-S/LoRA rank=4"]
    first, second = found["arms/ViT-S/LoRA rank=4"], found["arms/MiT-B0/SSF"]
    assert first["options"] == {"rank": 4} and first["size"] == [224, 280] and first["batch"] == 4
    assert first["over"]["fast"]["lean"] == {"step": [0.5] * 3, "kept": 0.5, "peak": 0.5}
    assert first["bound"] == {"bytes": 2 * 10**7, "peak_over_bound": 0.5}
    assert first["arms"]["bound"]["levels"] == ["lean", "least"] and first["arms"]["lean"]["levels"] == "lean"
    assert first["left_out"] == {"peft": "not today", "old": "no tree was given (--old)"}
    assert set(second["over"]) == {"fast", "old"}
    assert second["arms"]["bound"]["levels"] == 2 * 10**7  # bytes, for which the worker plans
    about = second["about"]
    assert about["rounds"] == 2 and about["versions"]["torch"] == torch.__version__
    assert str(ROOT) not in about["command"] and "--old ." in about["command"]
    printed = capsys.readouterr()
    assert (
        "| MiT-B0/SSF | lean | 2.0 | 20.0 | 1.0 | 2.000 | old | 1.000 | 1.000 | 0.500 (0.500 to 0.500) |" in printed.out
    )
    assert "`peft` is left out of ViT-S/LoRA rank=4: not today." in printed.out
    assert "peft is left out: not today" in printed.err


def test_levels_are_planned_for_a_bound(tool):
    tool("measure")
    from arms import TINY
    from stepping import Working

    case = dataclasses.asdict(TINY["ViT-S"])
    fast = Working("fast", case, "LoRA", {}, "fast", "cpu", False).facts()
    bound = fast["bytes"]["peak"] * 3 // 4
    found = Working("bound", case, "LoRA", {}, bound, "cpu", False).facts()
    assert found["bytes"]["peak"] <= bound and set(found["levels"]) <= {"fast", "lean", "least"}


def test_a_table_takes_every_method_and_few_rounds_are_not_kept(tool, monkeypatch, capsys):
    measure = tool("measure")
    args, wanted = measure.parsed(["--table"])
    assert args.arms == ["fast", "lean", "old"] and args.rounds == 15
    assert {trunk for trunk, _, _ in wanted} == {"ViT-S", "Swin-T", "MiT-B0"}
    assert {method for _, method, _ in wanted} >= {"LoRA", "SSF", "Mona", "MTLoRA", "FullFineTuning"}
    run(tool, monkeypatch, "--rounds", "14", "--arms", "fast")
    assert not measure.RESULTS.exists() or "--rounds 14" not in measure.RESULTS.read_text("utf-8")
    assert "not kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--method", "LORA"], "LoRA"),
        (["--method.rnk", "8"], "rank"),
        (["--table", "--method", "SSF"], "--table"),
        (["--arms", "bound"], "fast"),
        (["--levels", "lean,lowest"], "lowest"),
        (["--rounds", "0"], "--rounds"),
        (["--device", "cuda"], "no CUDA device"),
    ],
)
def test_what_cannot_be_measured_is_refused(tool, given, said, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        tool("measure").parsed(given)
    assert said in capsys.readouterr().err.splitlines()[-1]
