"""``garnish plan``: budgets, what they leave, the rule that chooses, and the command in process."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

import garnish as gn
from garnish.cli import main
from garnish.errors import OptionError
from garnish.planning import budget as budgets
from garnish.planning import stopwatch as stopwatches
from garnish.planning import survey as surveys
from garnish.planning.budget import Budget
from garnish.planning.candidates import Candidate
from garnish.planning.counting import Counted, Setting
from garnish.planning.recommend import recommend
from garnish.planning.shaped_trunk import ShapedTrunk
from garnish.planning.step_cost_prediction import PredictedStep
from garnish.planning.survey import survey

TINY = {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
TASKS = {"seg": gn.Semantic(classes=5), "depth": gn.Depth(max_metres=10.0)}


@pytest.mark.parametrize(
    ("how", "text", "value"),
    [
        (budgets.share, "1%", 0.01), (budgets.share, " 0.5 % ", 0.005), (budgets.share, "150%", 1.5),
        (budgets.size, "500k", 500_000), (budgets.size, "1.5MB", 1_500_000), (budgets.size, "8GB", 8 * 10**9),
        (budgets.size, "2GiB", 2 * 2**30), (budgets.size, "700", 700), (budgets.size, "12 kB", 12_000),
        (budgets.ratio, "1.5x", 1.5), (budgets.ratio, "2 ×", 2.0), (budgets.ratio, ".5X", 0.5),
    ],
)  # fmt: skip
def test_budgets_are_read(how, text, value):
    assert how(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (budgets.share, "1"), (budgets.share, "0%"), (budgets.share, "-1%"), (budgets.share, "one%"),
        (budgets.share, "nan%"), (budgets.size, "8TB"), (budgets.size, "GB"), (budgets.size, "0k"),
        (budgets.size, "1e3"), (budgets.size, "-5k"), (budgets.size, "1 000"), (budgets.ratio, "1.5"),
        (budgets.ratio, "0x"), (budgets.ratio, "x"), (budgets.ratio, "infx"), (budgets.ratio, "1.5.2x"),
    ],
)  # fmt: skip
def test_budgets_are_read_strictly(how, text):
    with pytest.raises(OptionError) as told:
        how(text)
    assert repr(text) in str(told.value) and "\n" not in str(told.value)


def fake_step(method: gn.Method) -> PredictedStep:
    """Memory that a rule can be checked with: beside the trunk little, inside it more with every size."""
    inside = 0 if type(method).__name__ in ("SideTuning", "Frozen") else 1_000_000
    return PredictedStep(10_000_000 + inside * (10 + getattr(method, "rank", 1)), 5)


class FakeStopwatch:
    """Time likewise: of heads only 2 seconds, inside the trunk half as much again and more with every size."""

    asked: list[gn.Method]

    def __init__(self, setting: Setting) -> None:
        FakeStopwatch.asked = []

    def timed(self, found: PredictedStep, method: gn.Method) -> PredictedStep | str:
        self.asked.append(method)
        inside = type(method).__name__ not in ("SideTuning", "Frozen")
        ratio = 1.5 + getattr(method, "rank", 1) / 100 if inside else 1.0
        return replace(found, step_seconds=2.0 * ratio, step_ratio=ratio)


KNOWN: dict[str, object] = {}


def once(function):
    """The tests' budgets differ, what they are held against does not."""

    def known(trunk, *args):
        key = f"{function.__name__} {args}"
        if key not in KNOWN:
            KNOWN[key] = function(trunk, *args)
        return copy.deepcopy(KNOWN[key])

    return known


@pytest.fixture
def setting(monkeypatch):
    monkeypatch.setattr(surveys, "baseline_bytes", lambda: 50)
    monkeypatch.setattr(surveys, "predict_step", lambda setting, method, *more: fake_step(method))
    monkeypatch.setattr(surveys, "Stopwatch", FakeStopwatch)
    monkeypatch.setattr(surveys, "candidates", once(surveys.candidates))
    monkeypatch.setattr(surveys, "count", once(surveys.count))
    return Setting(ShapedTrunk("mit_b0", TINY), TASKS, None, 2, (64, 64))


SOME = ["Frozen", "LoRA", "SideTuning", "VMTAdapter"]


def names(found) -> list[str]:
    return [str(row.counted.candidate) for row in found.rows]


def test_without_a_budget_all_that_fits_the_trunk_is_listed(setting):
    found = survey(setting, Budget(), [*SOME, "VPT"], most=3)
    assert len(found.rows) == 1 + 5 * 3 * 2 + 3 * 2 + 3 and not found.left_out
    # one of each reason: a rank above the smallest width, prompts of three numbers
    assert {r.name for r in found.refused} == {"LoRA rank=32", "VPT prompts=5"}
    assert found.unpredicted == len(found.rows) - 3
    sizes = [row.counted.encoder_trainable for row in found.rows]
    assert sizes == sorted(sizes) and sizes[0] == 0


def test_a_share_leaves_out_what_trains_more(setting):
    every = survey(setting, Budget(), SOME, most=1)
    total = every.rows[0].counted.encoder_total
    bound = every.rows[len(every.rows) // 2].counted.encoder_trainable / total
    found = survey(setting, Budget(share=bound), SOME, most=1)
    assert all(row.counted.encoder_trainable <= bound * total for row in found.rows)
    assert len(found.rows) + len(found.left_out) == len(every.rows)
    assert names(found) == [n for n in names(every) if n not in found.left_out]


def test_bytes_and_share_must_both_hold(setting):
    every = survey(setting, Budget(), SOME, most=1)
    share, bundle = 0.05, sorted(row.counted.bundle_bytes for row in every.rows)[6]
    found = survey(setting, Budget(share=share, bundle_bytes=bundle), SOME, most=1)
    expected = [r for r in every.rows if r.counted.share <= share and r.counted.bundle_bytes <= bundle]
    assert names(found) == [str(r.counted.candidate) for r in expected]


def test_memory_leaves_out_what_needs_more_and_its_larger_kin_unpredicted(setting):
    told: list[str] = []
    bound = fake_step(gn.LoRA(rank=4)).memory_bytes
    found = survey(setting, Budget(memory_bytes=bound + 50), ["LoRA"], say=told.append)
    assert {row.counted.candidate.size["rank"] for row in found.rows} == {1, 2, 4}
    assert all(row.predicted is not None for row in found.rows)
    assert not [line for line in told if "rank=16" in line]
    assert found.left_out["LoRA rank=16, all, shared"].startswith("larger than one that needs 0.03")
    tighter = survey(setting, Budget(memory_bytes=bound + 49), ["LoRA"])
    assert {row.counted.candidate.size["rank"] for row in tighter.rows} == {1, 2}


def test_step_time_is_held_against_heads_only(setting):
    found = survey(setting, Budget(step_ratio=1.58), ["LoRA", "Frozen"])
    assert {row.counted.candidate.size.get("rank") for row in found.rows} == {None, 1, 2, 4, 8}
    assert found.heads_only.step_seconds == 2.0 and found.heads_only.step_ratio == 1.0
    assert found.left_out["LoRA rank=16, mlp, shared"] == "takes 1.66 times the step of heads only"
    assert [m for m in FakeStopwatch.asked if m == gn.LoRA(rank=16)] == [gn.LoRA(rank=16)]
    copied = "larger than one that takes 1.66 times the step of heads only"
    assert found.left_out["LoRA rank=16, mlp, per task"] == copied  # a copy for each task takes no less


def test_where_both_bounds_are_given_no_step_is_made_that_breaks_the_one_on_memory(setting):
    bound = fake_step(gn.LoRA(rank=2)).memory_bytes + 50
    found = survey(setting, Budget(step_ratio=9.0, memory_bytes=bound), ["LoRA"])
    assert {row.counted.candidate.size["rank"] for row in found.rows} == {1, 2}
    assert {method.rank for method in FakeStopwatch.asked if type(method) is gn.LoRA} == {1, 2}


def test_only_so_many_are_timed_where_no_bound_asks_for_it(setting):
    found = survey(setting, Budget(memory_bytes=10**12), ["LoRA"], most=4)
    assert all(row.predicted is not None for row in found.rows)
    assert len(FakeStopwatch.asked) == 4 + 1  # and heads only
    assert found.untimed == len(found.rows) - 4 and not found.unpredicted
    timed = [row.counted for row in found.rows if row.predicted.step_seconds is not None]
    assert found.recommendation.choice in timed
    assert FakeStopwatch.asked[1] == found.recommendation.choice.candidate.method


def test_a_step_that_is_not_made_is_said(setting, monkeypatch):
    class Short(FakeStopwatch):
        def timed(self, found, method):
            return "no room" if type(method) is gn.LoRA else super().timed(found, method)

    monkeypatch.setattr(surveys, "Stopwatch", Short)
    told: list[str] = []
    found = survey(setting, Budget(), ["LoRA", "Frozen"], say=told.append)
    assert found.untimed == 30 and len(found.rows) == 31
    assert [line for line in told if line.endswith("no room")] == [
        line for line in told if line.startswith("LoRA rank=")
    ]
    bounded = survey(setting, Budget(step_ratio=9.0), ["LoRA", "Frozen"])
    assert names(bounded) == ["Frozen"]
    assert len(bounded.left_out) == 30 and set(bounded.left_out.values()) == {"no room"}


def test_heads_only_without_a_time_is_said(setting, monkeypatch):
    monkeypatch.setattr(FakeStopwatch, "timed", lambda self, found, method: "no room")
    told: list[str] = []
    found = survey(setting, Budget(), ["Frozen"], say=told.append)
    assert found.heads_only.step_seconds is None and told.count("Frozen: no room") == 2


def test_where_memory_excludes_the_trunk_s_activations_side_tuning_is_recommended(setting):
    bound = fake_step(gn.SideTuning()).memory_bytes
    found = survey(setting, Budget(memory_bytes=bound + 50), SOME)
    assert found.recommendation.choice.candidate.name == "SideTuning"
    assert "memory" in found.recommendation.reason


def test_a_step_that_cannot_be_predicted_is_said_and_not_guessed(setting, monkeypatch):
    def fails(setting, method, *more):
        if type(method) is gn.LoRA:
            raise NotImplementedError("no such fake operation")
        return fake_step(method)

    monkeypatch.setattr(surveys, "predict_step", fails)
    told: list[str] = []
    found = survey(setting, Budget(), ["LoRA"], most=2, say=told.append)
    assert all(row.predicted is None for row in found.rows) and len(found.rows) == 30
    assert sum("cannot be predicted (no such fake operation)" in line for line in told) == 2
    found = survey(setting, Budget(memory_bytes=10**12), ["LoRA", "Frozen"])
    assert names(found) == ["Frozen"]


def test_what_is_larger():
    def lora(rank, placement="all", sharing="shared"):
        return Candidate(gn.LoRA(rank=rank), placement, sharing)

    assert lora(8).exceeds(lora(8)) and lora(8).exceeds(lora(4)) and not lora(4).exceeds(lora(8))
    assert lora(8, sharing="per task").exceeds(lora(4)) and not lora(8).exceeds(lora(4, sharing="per task"))
    assert not lora(8).exceeds(lora(4, "mlp")) and not lora(8).exceeds(Candidate(gn.MTLoRA(rank=4), "all", "shared"))
    small, large = (Candidate(gn.SideTuning(reduction=r)) for r in (16.0, 4.0))
    assert large.exceeds(small) and not small.exceeds(large)  # as the method's grid says: fewer times narrower
    assert Candidate(gn.BitFit(), "", "per task").exceeds(Candidate(gn.BitFit(), "", "shared"))


def counted(method: gn.Method, trainable: int, **traits) -> Counted:
    return Counted(Candidate(method, **traits), 1_000_000, trainable, 10, 2 * trainable)


LORA = [counted(gn.LoRA(rank=r), 100 * r, merges=True, sharing="shared") for r in (1, 4, 8)]
COPIES = counted(gn.LoRA(rank=8, per_task=True), 1600, merges=True, sharing="per task")
VMT = [counted(gn.VMTAdapter(reduction=r), 50 * int(16 / r), parts=True, sharing="shared") for r in (16.0, 8.0)]
SIDE = counted(gn.SideTuning(), 700, beside=True)
FROZEN, FULL = counted(gn.Frozen(), 0), counted(gn.FullFineTuning(), 1_000_000)
ADAPTFORMER = counted(gn.AdaptFormer(), 5000)


@pytest.mark.parametrize(
    ("fitting", "tasks", "excludes", "choice"),
    [
        ([FROZEN, *LORA, *VMT, SIDE, ADAPTFORMER, FULL], 1, False, LORA[2]),
        ([FROZEN, *LORA, *VMT, SIDE, COPIES, ADAPTFORMER, FULL], 2, False, VMT[1]),
        ([FROZEN, *LORA, SIDE, COPIES], 2, False, LORA[2]),
        ([FROZEN, SIDE, ADAPTFORMER], 1, False, ADAPTFORMER),
        ([FROZEN, SIDE], 2, True, SIDE),
        ([FROZEN, SIDE, LORA[0]], 1, True, LORA[0]),
        ([FROZEN, FULL], 1, False, FROZEN),
        ([], 1, False, None),
    ],
)
def test_the_rule(fitting, tasks, excludes, choice):
    found = recommend(fitting, tasks, memory_excludes=excludes)
    assert found.choice is choice and found.reason and "\n" not in found.reason


COMMAND = ("plan", "mit_b0", "--tasks", "seg=Semantic,depth=Depth", "--tasks.seg.classes", "5")
COMMAND += ("--tasks.depth.max_metres", "10", "--size", "64,64", "--batch-size", "1")


def test_the_command_prints_json(capsys):
    words = (*COMMAND, "--budget", "1%", "--methods", "BitFit,Pfeiffer,VPT", "--predictions", "1", "--json")
    assert main([*words, "--head", "SegFormerHead", "--head.channels", "16"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "step 1 of 1" in err
    assert found["recommended"].startswith("Pfeiffer reduction=") and found["reason"]
    assert all(
        row["share"] <= 0.01 and row["encoder_trainable"] <= 0.01 * row["encoder_total"] for row in found["fits"]
    )
    predicted = [row for row in found["fits"] if row["memory_bytes"] is not None]
    assert len(predicted) == 1 and all(row["macs"] and row["step_ratio"] > 0 for row in predicted)
    assert predicted[0]["step_seconds"] > 0 and found["heads_only"]["step_seconds"] > 0
    assert all(row["step_seconds"] is None for row in found["fits"] if row not in predicted)
    assert "VPT prompts=5" in found["refused"] and found["left_out"]
    trunk = gn.backbone("mit_b0")
    row = next(r for r in found["fits"] if r["name"] == "BitFit, shared")
    model = gn.adapt(trunk, gn.BitFit(), TASKS, gn.SegFormerHead(channels=16))
    facts = model.report((64, 64))
    for key in ("encoder_trainable", "decoder_trainable", "bundle_bytes"):
        assert row[key] == facts[key]


def test_the_command_prints_a_table(capsys):
    one = (*COMMAND[:2], "--tasks", "seg=Semantic", *COMMAND[4:6], "--size", "32,32", "--batch-size", "1")
    assert main([*one, "--methods", "NormTuning,Frozen", "--memory", "64GB", "--step-time", "99x"]) == 0
    out = capsys.readouterr().out
    assert "* NormTuning" in out and "recommended: NormTuning" in out and "GB of Python" in out and "Frozen" in out
    assert main([*one, "--methods", "Frozen,VPT", "--memory", "1MB"]) == 0
    out = capsys.readouterr().out
    assert "the first of them: " in out
    assert "recommended: none; nothing fits" in out and "break the budget" in out and "takes no prompt tokens" in out


def test_a_step_without_room_is_left_empty_and_told(capsys, monkeypatch):
    monkeypatch.setattr(stopwatches, "free_bytes", lambda: 1000)
    words = (*COMMAND, "--methods", "BitFit", "--predictions", "1")
    assert main([*words]) == 0
    out, err = capsys.readouterr()
    assert "1 row without a step's time: memory is short" in out
    assert "BitFit, per task: its step is not timed, as it needs 0." in err and "1e-06 GB are free" in err
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["heads_only"]["step_seconds"] is None and found["heads_only"]["memory_bytes"] > 0
    row = next(row for row in found["fits"] if row["memory_bytes"] is not None)
    assert row["macs"] and row["step_seconds"] is None and row["step_ratio"] is None
    assert main([*COMMAND, "--methods", "BitFit", "--step-time", "9x", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["fits"] and all("is not timed" in why for why in found["left_out"].values())


def test_the_caller_s_random_numbers_go_on_as_if_nothing_had_been_planned():
    setting = Setting(ShapedTrunk("mit_b0", TINY), TASKS, None, 1, (32, 32))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = survey(setting, Budget(), ["AdaptFormer", "FullFineTuning"], most=2)  # the first has a dropout
    assert sum(row.predicted is not None and row.predicted.step_seconds > 0 for row in found.rows) == 2
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("plan", "mit_b0"), "--tasks is missing"),
        ((*COMMAND, "--budget", "5"), "--budget: '5' is no share"),
        ((*COMMAND, "--bytes", "many"), "--bytes: 'many' is not a size"),
        ((*COMMAND, "--memory", "8TB"), "--memory: '8TB' is not a size"),
        ((*COMMAND, "--memory", "8"), "--memory: '8' is 8 bytes, in which no step fits; write the unit, e.g. 8GB"),
        ((*COMMAND, "--step-time", "2"), "--step-time: '2' is not a multiple"),
        ((*COMMAND, "--methods", "Lora"), "did you mean 'LoRA'?"),
        ((*COMMAND, "--batch-size", "0"), "not a whole number from 1"),
        (("plan", "mit_b9", *COMMAND[2:]), "unknown backbone 'mit_b9'"),
        ((*COMMAND, "--head", "LinaerHead"), "LinearHead"),
        ((*COMMAND, "--adapter", "LoRA"), "unknown option '--adapter'"),
    ],
)
def test_mistakes_are_told_in_one_line(words, told, capsys):
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == "" and told in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch-size", "1000000"], "--batch-size 1000000 is out of range; set 1 to 100,000"),
        (["--batch-size", "9" * 5000], "argument --batch-size: '99999"),
        (["--size", "65000,8"], "--size 65000,8 is out of range; set sides of 1 to 16,384 pixels"),
        (["--batch-size", "100000", "--size", "1000,1000"], "has more than 2,147,483,648 pixels; set fewer"),
        (
            ["--size", "1,1"],
            "a step of heads only on 4 pictures of 1x1 is not possible: its step cannot be predicted (",
        ),
    ],
)
def test_an_absurd_batch_is_one_line(capsys, words, told):
    given = ["plan", "garnish_b0", "--tasks", "seg=Semantic", "--tasks.seg.classes", "2", "--methods", "BitFit", *words]
    assert main(given) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert told in line and line.startswith("garnish: plan: ") and len(line) < 400
