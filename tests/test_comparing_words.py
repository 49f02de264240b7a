"""Notes, axes and sentences of a report, from figures made by hand: what is said of whom, and where a value lies."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest

from comparing_cases import trained
from comparison_example import example
from garnish.comparing.outcomes import Failed
from garnish.comparing.report.remarks import notes_of
from garnish.comparing.report.results import read_results
from garnish.comparing.report.verdict import verdict
from garnish.reporting.svg import Axis, log_ticks, padded, path, round_ticks, tag, text_width


def arm(name: str, role: str = "adapter", **facts) -> dict:
    plain = {"name": name, "role": role, "status": "done", "reason": None, "trunk": "pretrained", "cached": False,
             "flat": True, "rate_at_edge": False, "rate": 1e-3, "search": [], "runs": [], "methods": [], "metrics": {},
             "per_class": {}, "delta_m": None, "gap": {}, "difference": {}, "wall_seconds": None, "dominated": False,
             "encoder_total": None, "encoder_trainable": None, "decoder_trainable": None, "bundle_bytes": None,
             "macs": None, "bytes_for_backward": None, "step_seconds": None, "step_ratio": None}  # fmt: skip
    return plain | facts


def tried(status: str, **facts) -> dict:
    return {"status": status, "score": None, "curve": []} | facts


def planned(*, best_by=None, eval_limit=None, variants=None, pictures=True, groups=1, warnings=()) -> SimpleNamespace:
    training = SimpleNamespace(best_by=best_by, eval_limit=eval_limit, variants=variants)
    arms = dict.fromkeys(["LoRA", "heads", "full"], SimpleNamespace(groups=[("seg",)] * groups))
    conditions = SimpleNamespace(
        training=training,
        arms=arms,
        options=SimpleNamespace(pictures=pictures),
        store=SimpleNamespace(folder=Path("/data/store")),
    )
    return SimpleNamespace(
        conditions=conditions, outcomes={1: trained([(1, 0.5)], warnings=tuple(warnings)), 2: Failed(reason="x")}
    )


def results(arms: list[dict], *, status="done", task="Semantic", licence=(False, "MIT", "w.safetensors"), size=None):
    """Those of some arms on one task."""
    non_commercial, name, weights = licence
    whole = example(tasks=("seg",))
    whole |= {"status": status, "arms": arms}
    whole["licences"]["backbone"] |= {"non_commercial": non_commercial, "licence": name, "weights": weights}
    whole["tasks"]["seg"]["task"] = task
    whole["protocol"] |= {"eval_size": size, "held_out_pictures": 20}
    return read_results(whole)


ALWAYS = [
    "Scores on the held-out part are the geometric mean over tasks of the headline metric, or of 1 over it where lower"
    " is better.",
    "Measured are bundles as they are stored, at float16, on the test pictures at their own size.",
    "Intervals say how far a figure depends on which pictures were tested, not on the seed; of frames of a video, which"
    " resemble each other, they are too narrow.",
]


def beyond(plan, found, said=()) -> list[str]:
    """The notes that are not always there."""
    return [note for note in notes_of(plan, found, said) if note not in ALWAYS]


def test_nothing_to_note_but_what_is_always_said():
    assert notes_of(planned(), results([arm("LoRA")]), []) == ALWAYS


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"flat": False}, "The budget is short for LoRA: "),
        ({"flat": None}, "Whether the budget sufficed cannot be told for LoRA: "),
        ({"flat": None, "status": "unfinished"}, None),
        ({"rate_at_edge": True}, "The chosen rate is at the edge of those tried for LoRA; "),
        ({"role": "frozen"}, "Searched is the rate of what an arm adapts; "),
        ({"status": "failed", "reason": "diverged"}, "LoRA failed: diverged."),
        ({"trunk": "random"}, "Random trunks have other weights for each seed."),
        ({"step_ratio": 1.5}, "Step times were measured side by side"),
        (
            {
                "search": [
                    tried("failed", task="seg", rate=0.01, reason="inf"),
                    tried("done", task=None, rate=0.1, reason=None),
                ]
            },
            "LoRA, seg: rate 0.01 failed: inf.",
        ),
    ],
)
def test_a_note_is_there_where_its_fact_is(facts, told):
    notes = beyond(planned(), results([arm("LoRA", **facts)]))
    assert [note.startswith(told) for note in notes] == [True] if told else notes == []


def test_models_of_one_arm_are_named_by_their_tasks():
    by_task = {
        "seg": {"rate": 1.0, "flat": False, "rate_at_edge": False},
        "depth": {"rate": 1.0, "flat": True, "rate_at_edge": True},
    }
    full = arm("full", "single", flat=False, rate_at_edge=True, by_task=by_task)
    short, edge, together = beyond(planned(groups=2), results([full, arm("LoRA", flat=False)]))
    assert short.startswith("The budget is short for full (seg); LoRA: ")
    assert edge.startswith("The chosen rate is at the edge of those tried for full (depth); ")
    assert together.startswith("Of full fine-tuning with a model a task, ")
    assert len(beyond(planned(groups=1), results([arm("full", "single")]))) == 0, "one model is the arm's own"


@pytest.mark.parametrize(("limit", "told"), [(None, False), (5, True), (20, False), (50, False)])
def test_scores_of_a_part_of_the_held_out_pictures(limit, told):
    notes = beyond(planned(eval_limit=limit), results([arm("LoRA")]))
    assert notes == ([f"Scores on the held-out part are of {limit} of its pictures, evenly spaced."] if told else [])


@pytest.mark.parametrize(
    ("variants", "cached", "told"),
    [
        (None, True, []),
        (3, False, ["All arms see the same 3 augmented variants of each training picture; none is cached."]),
        (3, True, ["All arms see the same 3 augmented variants of each training picture; heads read the trunk's"
                   " features of them from a cache."]),
    ],
)  # fmt: skip
def test_variants_and_caches(variants, cached, told):
    assert beyond(planned(variants=variants), results([arm("heads", cached=cached), arm("LoRA")])) == told


def test_the_rest_of_the_notes():
    size = results([arm("LoRA")], size=[168, 112])
    assert any("on the test pictures at 168 × 112 pixels." in note for note in notes_of(planned(), size, []))
    best = notes_of(planned(best_by="seg.miou"), results([arm("LoRA")]), [])
    assert best[0] == "Scores on the held-out part are seg.miou, with a minus where lower is better."
    unfinished = results([arm("LoRA"), arm("heads", status="unfinished"), arm("full")], status="unfinished")
    assert beyond(planned(), unfinished) == ["Unfinished: 2 of 3 arms are done; give the same command again to go on."]
    assert beyond(planned(pictures=False), results([arm("LoRA")]))[0].endswith("(--no-pictures).")
    assert beyond(planned(), results([arm("LoRA")]), ["once", "twice", "once"]) == ["once", "twice"]


def test_licences_and_trunks_of_depth():
    def licensed(non_commercial: bool, weights: str, task: str) -> list[str]:
        found = results([arm("LoRA")], licence=(non_commercial, "CC-BY-NC-4.0", weights), task=task)
        return beyond(planned(), found)

    assert licensed(True, "w", "Depth") == [
        "The trunk's weights are not for commercial use (CC-BY-NC-4.0), and so is what was trained."
    ]
    assert licensed(False, "Depth_Anything.safetensors", "Semantic") == []
    (note,) = licensed(False, "Depth_Anything.safetensors", "Depth")
    assert note.startswith("The trunk's weights come from training for depth")


def test_warnings_of_training_are_told_once_without_folders_and_not_all_of_them():
    lines = ["see /data/store/a", "see /data/store/a", "these weights are non-commercial", *(f"w{k}" for k in range(9))]
    notes = beyond(planned(warnings=lines), results([arm("LoRA")]))
    assert notes == [f"Training warned: {w}." for w in ("see the store/a", "w0", "w1", "w2", "w3")]


# ------------------------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (0, 1, 4, [0, 0.5, 1]),
        (-3.2, 2.1, 6, [-3, -2, -1, 0, 1, 2]),
        (0.61, 0.64, 3, [0.61, 0.62, 0.63, 0.64]),
        (0, 38, 4, [0, 10, 20, 30]),
    ],
)
def test_round_ticks(low, high, most, ticks):
    assert round_ticks(low, high, most) == pytest.approx(ticks)
    assert Axis(low, high, 0, 1).ticks(most) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (1, 10, 5, [1, 2, 5, 10]),
        (3, 40, 5, [5, 10, 20]),
        (1, 1000, 7, [1, 3, 10, 30, 100, 300, 1000]),
        (1, 1e6, 8, [10**k for k in range(7)]),
        (1, 1e6, 4, [1, 100, 1e4, 1e6]),
    ],
)
def test_log_ticks(low, high, most, ticks):
    assert log_ticks(low, high, most) == pytest.approx(ticks)
    assert Axis(low, high, 0, 1, log=True).ticks(most) == pytest.approx(ticks)


def test_places_of_values():
    up = Axis(0, 10, 200, 100)  # upward, as pictures count rows
    assert [up.at(v) for v in (0, 5, 10, 20)] == [200, 150, 100, 0]
    assert [up.clipped(v) for v in (-5, 5, 20)] == [200, 150, 100]
    along = Axis(1, 1000, 0, 300, log=True)
    assert [along.at(v) for v in (1, 10, 1000)] == pytest.approx([0, 100, 300])


def test_room_around_values():
    assert padded([2.0, 12.0]) == pytest.approx((1.2, 12.8))
    assert padded([5.0]) == pytest.approx((4.5, 5.5)) and padded([0.0]) == (-1.0, 1.0)
    assert padded([10.0, 1000.0], log=True) == pytest.approx((10**0.84, 10**3.16))
    assert padded([100.0], log=True) == pytest.approx((10**1.5, 10**2.5))


def test_elements():
    assert tag("g", {"class": "a<b", "x": None}, "1 < 2") == '<g class="a&lt;b">1 &lt; 2</g>'
    assert path([(0, 1.26), (3.0, 4)], "line") == '<path d="M0 1.3 L3 4" class="line"></path>'
    assert text_width("mi", 10) == pytest.approx(13.1)


# ---------------------------------------------------------------------------------------------------------- verdict


def measured(name: str, mean: float, interval, size: int, difference=None, role: str = "adapter") -> dict:
    return arm(name, role) | {
        "delta_m": {"mean": mean, "least": mean, "most": mean, "values": [mean], "interval": interval},
        "encoder_trainable": size,
        "difference": {} if difference is None else {"depth": difference},
    }


COMPARED = example(tasks=("depth",)) | {
    "arms": [
        measured("heads only", -4.0, [-5, -3], 0, role="frozen"),
        measured("full", 0.0, [0, 0], 20_000_000, role="single"),
        measured("small", -1.0, [-2, -0.5], 100_000, {"mean": 0.2, "interval": [0.1, 0.3]}),
        measured("good", 2.0, [1.0, 3.0], 1_000_000, {"mean": 0.05, "interval": [-0.1, 0.2]}),
    ],
}


def test_the_best_adapter_the_most_for_its_size_and_where_adapters_lose():
    told = verdict(read_results(COMPARED))
    assert told.line.startswith(
        "good beats full fine-tuning of one model a task: Δm +2.0 %, 95 % interval +1.0 to +3.0"
    )
    assert told.remarks[0].startswith("Most Δm per trained parameter: small, +3.0 points over the frozen trunk")
    assert told.remarks[1] == "Where adapters lose to full fine-tuning: depth: 1 of 2 lose."
    assert len(told.remarks) == 2


def test_lower_is_better_turns_who_loses():
    other = copy.deepcopy(COMPARED)
    other["tasks"]["depth"]["higher_is_better"] = True
    assert "Where adapters lose" not in " ".join(verdict(read_results(other)).remarks)
    other["arms"][2]["difference"]["depth"] = {"mean": -0.2, "interval": [-0.3, -0.1]}
    assert "depth: 1 of 2 lose" in " ".join(verdict(read_results(other)).remarks)
    other["arms"][3]["difference"]["depth"] = {"mean": -0.1, "interval": [-0.2, -0.05]}
    (lost,) = [remark for remark in verdict(read_results(other)).remarks if "Where adapters" in remark]
    assert "depth: all 2 adapters lose (best " in lost and "0.1" in lost and "0.2" not in lost


def test_no_gain_over_the_frozen_trunk():
    flat = copy.deepcopy(COMPARED)
    for one in flat["arms"][2:]:
        one["delta_m"] |= {"mean": -4.5, "interval": [-6, -4]}
    assert "No adapter gains anything over the frozen trunk." in verdict(read_results(flat)).remarks
