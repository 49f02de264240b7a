"""A comparison from end to end, on scenes: what is run, what is not run again, what failed arms leave."""

from __future__ import annotations

import csv
import json
import os

import pytest

from comparing_cases import conditions, run, without_times
from garnish.comparing import runs as training
from garnish.comparing.schedule import RunPlan
from garnish.data.scenes.scenes import Scenes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def first(tmp_path_factory, mit_weights):
    folder = tmp_path_factory.mktemp("first") / "report"
    return folder, run(folder, mit_weights)


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that are trained."""
    found = []
    inner = training._trained

    def noted(conditions, run, goes_on):
        found.append(str(run))
        return inner(conditions, run, goes_on)

    monkeypatch.setattr(training, "_trained", noted)
    return found


def arm_of(results, name):
    return next(arm for arm in results["arms"] if arm["name"] == name)


def test_the_report_holds_what_the_protocol_says(first):
    folder, results = first
    assert json.loads((folder / "results.json").read_text("utf-8")) == results
    assert results["status"] == "done" and [a["status"] for a in results["arms"]] == ["done"] * 3
    assert [a["name"] for a in results["arms"]] == ["heads only", "full, one task each", "LoRA rank=2"]
    assert results["protocol"]["steps"] == 4 and results["protocol"]["held_out"] == "the split val"
    sizes = [results["protocol"][f"{part}_pictures"] for part in ("train", "held_out", "test")]
    assert sizes == [8, 3, 4]
    for arm in results["arms"]:
        tasks = ["seg", "depth"] if arm["role"] == "single" else [None]
        assert [(s["task"], s["rate"]) for s in arm["search"]] == [
            (task, rate)
            for task in tasks
            for rate in results["protocol"]["rates" if tasks == [None] else "reference_rates"]
        ]
        assert [(r["task"], r["seed"]) for r in arm["runs"]] == [(task, seed) for task in tasks for seed in (0, 1)]
        for task in tasks:
            found = {s["rate"]: s["score"] for s in arm["search"] if s["task"] == task}
            chosen = arm["rate"] if task is None else arm["by_task"][task]["rate"]
            assert found[chosen] == max(found.values())
        assert [step for step, _ in arm["runs"][0]["curve"]] == [1, 2, 3, 4]
        assert arm["rate_at_edge"], "of two rates, both are at the edge"
    with (folder / "results.csv").open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [arm["name"] for arm in results["arms"]]
    assert "LoRA rank=2" in (folder / "index.html").read_text("utf-8")


def test_figures_follow_from_the_metrics(first):
    _, results = first
    single, frozen, lora = (arm_of(results, n) for n in ("full, one task each", "heads only", "LoRA rank=2"))

    def headline(arm, task, what="mean"):
        return arm["metrics"][task][results["tasks"][task]["headline"]][what]

    s = {task: headline(single, task) for task in ("seg", "depth")}
    for arm in (single, frozen, lora):
        values = [
            50 * ((seg - s["seg"]) / s["seg"] - (depth - s["depth"]) / s["depth"])
            for seg, depth in zip(headline(arm, "seg", "values"), headline(arm, "depth", "values"), strict=True)
        ]
        assert arm["delta_m"]["values"] == pytest.approx(values, abs=1e-9)
        assert arm["delta_m"]["mean"] == pytest.approx(sum(values) / 2, abs=1e-9)
    assert single["delta_m"]["interval"] == pytest.approx([0, 0], abs=1e-9)
    assert single["gap"] == frozen["gap"] == single["difference"] == {}
    for task, better in (("seg", 1), ("depth", -1)):
        full, low, mine = s[task], headline(frozen, task), headline(lora, task)
        gap = lora["gap"][task]
        if better * (full - low) <= 0:
            assert gap["mean"] is None and "not better" in gap["void"]
        elif gap["void"] is not None:  # four pictures tell little
            assert gap["mean"] is gap["interval"] is None and "of the resampled test sets" in gap["void"]
            assert any(note.startswith(f"{task}: no gap recovered is told") for note in results["notes"])
        else:
            assert gap["mean"] == pytest.approx((mine - low) / (full - low))
        assert lora["difference"][task]["mean"] == pytest.approx(mine - full)
    assert set(lora["per_class"]) == {"seg"} and set(lora["per_class"]["seg"]) == set(
        results["tasks"]["seg"]["classes"]
    )
    assert frozen["encoder_trainable"] == 0 and frozen["step_ratio"] == 1.0
    total = single["encoder_total"]
    assert single["encoder_trainable"] == 2 * total, "two models"
    assert 0 < lora["encoder_trainable"] < total


def test_sheets_show_every_arm_beside_the_label(first):
    folder, results = first
    assert {sheet["kind"] for sheet in results["sheets"]} == {"sample", "worst"}
    for sheet in results["sheets"]:
        assert list(sheet["cells"]) == ["picture", "target", *(arm["name"] for arm in results["arms"])]
        assert all((folder / cell).is_file() for cell in sheet["cells"].values())
        assert set(sheet["values"]) <= {arm["name"] for arm in results["arms"]}


def test_a_second_call_runs_nothing(first, mit_weights, trained, monkeypatch):
    folder, results = first
    read = []
    inner = Scenes.__getitem__
    monkeypatch.setattr(Scenes, "__getitem__", lambda self, index: read.append(index) or inner(self, index))
    again = run(folder, mit_weights)
    assert trained == [] and read == []
    assert without_times(again) == without_times(results)
    assert [a["step_seconds"] for a in again["arms"]] == [a["step_seconds"] for a in results["arms"]]


def test_an_arm_a_seed_and_a_rate_more_rerun_nothing(first, mit_weights, trained):
    folder, results = first
    rates = [1e-3, 3e-3, 1e-9]  # the last one is never chosen
    more = run(folder, mit_weights, adapters="LoRA(rank=2),BitFit", seeds=3, rates=rates, references=["frozen"])
    chosen = {name: arm_of(more, name)["rate"] for name in ("heads only", "LoRA rank=2", "BitFit")}
    expected = {f"BitFit, seg+depth, rate {rate:g}, seed 0" for rate in rates}
    expected |= {f"BitFit, seg+depth, rate {chosen['BitFit']:g}, seed {seed}" for seed in (1, 2)}
    expected |= {f"{name}, seg+depth, rate 1e-09, seed 0" for name in ("heads only", "LoRA rank=2")}
    expected |= {f"{name}, seg+depth, rate {chosen[name]:g}, seed 2" for name in ("heads only", "LoRA rank=2")}
    assert sorted(trained) == sorted(expected)
    for name in ("heads only", "LoRA rank=2"):
        ours, theirs = (arm_of(found, name)["runs"] for found in (more, results))
        assert ours[:2] == theirs


def test_an_option_that_changes_numbers_reruns_what_it_changes(first, mit_weights, trained):
    folder, _ = first
    before = conditions(folder, mit_weights)
    keys = {str(run): before.key(run) for run in every_run(before)}
    free = conditions(folder, mit_weights, train={"save_every": 3, "log_every": 1, "log": ["csv"], "check_pictures": 2})
    assert {str(run): free.key(run) for run in every_run(free)} == keys
    longer = conditions(folder, mit_weights, train={"steps": 5})
    assert not set(keys.values()) & {longer.key(run) for run in every_run(longer)}
    # the searched rate of heads only is its head_lr, which is no other arm's
    other = conditions(folder, mit_weights, train={"head_lr": 0.5})
    changed = {str(run) for run in every_run(other) if other.key(run) != keys[str(run)]}
    assert changed == {name for name in keys if not name.startswith("heads only")}
    weighted = conditions(folder, mit_weights, train={"balance": {"depth": 2.0}})
    changed = {str(run) for run in every_run(weighted) if weighted.key(run) != keys[str(run)]}
    assert changed == {name for name in keys if ", seg, " not in name}


def every_run(conditions):
    plan = RunPlan(conditions)
    return [run for arm in conditions.arms.values() for group in arm.groups for run in plan.search(arm, group)]


def test_a_diverging_arm_is_recorded_and_the_others_go_on(tmp_path, mit_weights, trained):
    given = {"adapters": "LoRA(rank=2),BitFit", "references": ["single"], "reference_rates": [1e9], "seeds": 1}
    given["train"] = {"eval_every": 4}  # an evaluation would fail first, at storing 1e9 in float16
    results = run(tmp_path / "report", mit_weights, **given)
    single, lora = arm_of(results, "full, one task each"), arm_of(results, "LoRA rank=2")
    assert single["status"] == "failed" and "every rate" not in single["reason"] and "step" in single["reason"]
    assert all(
        s["status"] == "failed" and ("not finite" in s["reason"] or "nan" in s["reason"]) for s in single["search"]
    )
    assert lora["status"] == "done" and lora["delta_m"] is None and lora["metrics"]
    assert any("failed" in note for note in results["notes"])
    assert results["status"] == "done" and (tmp_path / "report/index.html").is_file()
    trained.clear()
    run(tmp_path / "report", mit_weights, **given)
    assert trained == [], "what failed is not tried again"
    from garnish.comparing.compare import compare

    compare(conditions(tmp_path / "report", mit_weights, **given), retry=True)
    assert len(trained) == 2 and all("full, one task each" in name for name in trained)


def test_a_failed_rate_is_a_lost_candidate(tmp_path, mit_weights):
    results = run(tmp_path / "report", mit_weights, references=["single"], reference_rates=[1e-4, 1e9], seeds=1)
    single = arm_of(results, "full, one task each")
    assert single["status"] == "done" and single["rate"] == 1e-4
    assert [s["status"] for s in single["search"]] == ["done", "failed"] * 2


def test_a_seed_that_fails_fails_its_arm_and_leaves_the_rest(tmp_path, mit_weights, monkeypatch):
    inner = training._trained

    def sometimes(conditions, run, goes_on):
        if run.arm == "LoRA rank=2" and run.seed == 1:
            raise MemoryError
        return inner(conditions, run, goes_on)

    monkeypatch.setattr(training, "_trained", sometimes)
    results = run(tmp_path / "report", mit_weights, references=["frozen"])
    lora = arm_of(results, "LoRA rank=2")
    assert lora["status"] == "failed" and "seed 1: out of memory" in lora["reason"]
    assert len(lora["metrics"]["seg"]["miou"]["values"]) == 1
    assert arm_of(results, "heads only")["status"] == "done"


def test_a_search_is_widened_once_and_told(tmp_path, mit_weights, trained):
    given = {"references": [], "adapters": "LoRA(rank=2)", "rates": [1e-9, 3e-9], "widen": 1, "seeds": 1}
    results = run(tmp_path / "report", mit_weights, **given)
    (lora,) = results["arms"]
    tried = [s["rate"] for s in lora["search"]]
    assert tried == [1e-9, 3e-9, 9e-9] or tried == [3.33333e-10, 1e-9, 3e-9]
    assert results["protocol"]["rates"] == [1e-9, 3e-9] and results["protocol"]["widen"] == 1
    assert lora["rate_at_edge"] == (lora["rate"] != tried[1]) and len(trained) == 3
    assert "2 learning rates an arm, up to 1 more beyond an end" in (tmp_path / "report/index.html").read_text("utf-8")
    trained.clear()
    assert without_times(run(tmp_path / "report", mit_weights, **given)) == without_times(results) and trained == []


def test_the_test_pictures_are_not_read_before_a_rate_is_chosen(tmp_path, mit_weights, monkeypatch):
    events = []
    inner, outcome = Scenes.__getitem__, RunPlan.note

    def reading(self, index):
        if self.seed == 2:  # the third of a recipe's splits
            events.append("test")
        return inner(self, index)

    def noting(self, job, found):
        events.append((job.kind, job.run.arm))
        outcome(self, job, found)

    monkeypatch.setattr(Scenes, "__getitem__", reading)
    monkeypatch.setattr(RunPlan, "note", noting)
    run(tmp_path / "report", mit_weights, adapters="LoRA(rank=2)", references=["frozen"], controls=["random"])
    assert "test" in events
    for arm in ("heads only", "LoRA rank=2", "LoRA rank=2, random trunk"):
        trainings = [place for place, event in enumerate(events) if event == ("train", arm)]
        measures = [place for place, event in enumerate(events) if event == ("measure", arm)]
        assert len(trainings) == 3 and len(measures) == 2
        between = events[trainings[0] : trainings[-1]]
        assert max(trainings) < min(measures) and "test" not in between


def test_random_trunks_differ_by_seed_and_are_not_the_recipes(tmp_path, mit_weights):
    made = conditions(tmp_path / "report", mit_weights, controls=["random"], references=["scratch"])
    runs = {(run.arm, run.seed): run for run in every_run(made)}
    run = runs["LoRA rank=2, random trunk", 0]
    other = type(run)(run.arm, run.tasks, run.rate, 1)
    prints = [made.build(one).backbone.fingerprint() for one in (run, run, other)]
    assert prints[0] == prints[1] != prints[2]
    assert made.trunk_facts.fingerprint not in prints
    assert made.key(run) != made.key(runs["LoRA rank=2", 0])
    assert made.arms["full from scratch"].rates == (1e-4, 3e-4)


@pytest.mark.slow
def test_jobs_side_by_side_give_the_same(first, tmp_path, mit_weights, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    results = run(tmp_path / "report", mit_weights, jobs=2)
    assert without_times(results) == without_times(first[1])
    assert os.getpid() and not list((tmp_path / "report/.store").rglob("state.safetensors"))


def test_a_subset_keeps_the_labels_of_its_tasks():
    from garnish.data.sources import open_data
    from garnish.data.subset import Subset

    whole = open_data({"name": "scenes", "train": 8, "size": 32}, "train", tasks=["seg", "depth"])
    part = Subset(whole, [1, 3], ["seg"])
    assert len(part) == 2 and list(part[1].targets) == ["seg"] and part[1].name == whole[3].name
    assert part.key(1) == f"{whole.key(3)}:seg" and list(part.tasks) == ["seg"]


def test_arms_that_leave_the_trunk_alone_are_cached_and_the_others_see_the_same_pictures(tmp_path, mit_weights):
    folder = tmp_path / "report"
    given = {"references": ["frozen"], "seeds": 1, "rates": [1e-3], "train": {"variants": 2}}
    results = run(folder, mit_weights, **given)
    cached = {arm["name"]: arm["cached"] for arm in results["arms"]}
    assert cached == {"heads only": True, "LoRA rank=2": False}
    assert list((folder / ".store/features").rglob("*.safetensors"))
    assert results["protocol"]["variants"] == 2
    assert any("the same 2 augmented variants" in note and "heads only read" in note for note in results["notes"])


@pytest.mark.slow
def test_a_process_that_dies_takes_its_own_run_along(tmp_path, mit_weights, monkeypatch):
    from garnish.comparing.workers import Workers

    inner, killed = Workers.wait, []

    def wait(self):
        for worker in self._workers:
            if not killed and worker.job is not None and worker.is_ready and worker.job.run.arm == "LoRA rank=2":
                killed.append(worker.job.run)
                worker.process.kill()
        return inner(self)

    monkeypatch.setattr(Workers, "wait", wait)
    results = run(tmp_path / "report", mit_weights, references=["frozen"], seeds=1, jobs=2)
    lora = arm_of(results, "LoRA rank=2")
    assert {s["rate"]: s["status"] for s in lora["search"]}[killed[0].rate] == "failed"
    assert "ended by signal 9" in next(s["reason"] for s in lora["search"] if s["status"] == "failed")
    assert [arm["status"] for arm in results["arms"]] == ["done", "done"]


def test_notes_name_no_folder_of_the_machine(tmp_path, mit_weights):
    given = {"references": ["frozen"], "seeds": 1, "rates": [1e-3], "train": {"variants": 1, "cache_gb": 1e-6}}
    notes = run(tmp_path / "report", mit_weights, **given)["notes"]
    assert any("the store/features is full" in note for note in notes), notes
    assert str(tmp_path) not in " ".join(notes)
