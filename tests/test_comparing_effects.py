"""Figures of a comparison against plain numpy: fixed totals of six test pictures, one set of draws for everybody."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import garnish as gn
from garnish.comparing.analysis.effects import RESAMPLES, Effects
from garnish.comparing.analysis.statistics import dominated, resamples
from garnish.comparing.analysis.totals_by_picture import PictureTotals, save_totals
from garnish.comparing.arms import Arm, ArmRun
from garnish.comparing.outcomes import Failed, Measured
from garnish.comparing.report.results import Gap
from garnish.comparing.store import Store
from garnish.comparing.test_scores import drawn_of

PICTURES = tuple(f"p{i}" for i in range(6))
TASKS = {"seg": gn.Semantic(classes=2), "depth": gn.Depth()}
BOTH = (("seg", "depth"),)
ARMS = {
    "frozen": Arm(name="frozen", role="frozen", methods=(gn.Frozen(),), rates=(0.1,), groups=BOTH),
    "single": Arm(
        name="single", role="single", methods=(gn.FullFineTuning(),), rates=(0.1,), groups=(("seg",), ("depth",))
    ),
    "lora": Arm(name="lora", role="adapter", methods=(gn.LoRA(),), rates=(0.1,), groups=BOTH),
}
#: How right an arm is: share of the pixels of a class that are found, and metres of error. Full fine-tuning is the best
#: by far, so that there is a gap in every draw.
LEVEL = {"frozen": (0.55, 2.0), "lora": (0.75, 1.2), "single": (0.85, 0.8)}
SEEDS = (3, 5)


def raw_totals(arm: str, task: str, seed: int) -> dict[str, np.ndarray]:
    """Six pictures, with how hard each is shared by all arms and its own for each task."""
    hard = np.random.default_rng([len(task)]).uniform(0.6, 1.4, 6)
    rng = np.random.default_rng([len(arm), len(task), seed])
    found, error = LEVEL[arm]
    if task == "seg":
        right = np.clip(found / hard + rng.normal(0, 0.02, 6), 0.05, 0.98)
        pixels = np.array([[900, 100], [700, 300], [500, 500], [800, 200], [650, 350], [990, 10]])
        hits = np.floor(pixels * right[:, None]).astype(np.int64)
        matrix = np.stack([np.stack([hits[:, 0], pixels[:, 0] - hits[:, 0]], 1),
                           np.stack([pixels[:, 1] - hits[:, 1], hits[:, 1]], 1)], 1)  # fmt: skip
        return {"matrix": matrix, "thin": np.zeros((6, 4), np.int64)}
    pixels = np.array([400, 1000, 700, 900, 150, 600])
    squares = pixels * (error * hard + rng.normal(0, 0.02, 6)) ** 2
    return {
        "errors": np.stack([squares, squares / 3, squares / 9], 1),
        "counts": np.stack([pixels, pixels // 2, pixels // 2, pixels], 1),
    }


def by_hand(arm: str, task: str, seed: int, counts: np.ndarray) -> np.ndarray:
    """(R,) mean IoU of two classes, or the root of the mean square over pixels, of each draw."""
    totals = raw_totals(arm, task, seed)
    if task == "depth":
        return np.sqrt(counts @ totals["errors"][:, 0] / (counts @ totals["counts"][:, 0]))
    m = np.einsum("rp,pij->rij", counts, totals["matrix"])
    return np.mean([m[:, k, k] / (m[:, k].sum(1) + m[:, :, k].sum(1) - m[:, k, k]) for k in (0, 1)], axis=0)


#: The one set of draws: each is six pictures with replacement.
DRAWS = np.random.default_rng(0).multinomial(6, [1 / 6] * 6, size=1000)
ONCE = np.ones((1, 6))


def hand(arm: str, task: str, counts: np.ndarray = DRAWS) -> np.ndarray:
    """The mean over seeds."""
    return (by_hand(arm, task, 3, counts) + by_hand(arm, task, 5, counts)) / 2


def quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, [0.025, 0.975]).tolist()


class Planned:
    """A plan whose runs are all trained and measured: what was measured lies in a store."""

    def __init__(self, folder, arms=ARMS) -> None:
        store = Store(folder)
        parts = SimpleNamespace(test=lambda tasks=None: PICTURES)
        self.conditions = SimpleNamespace(
            tasks=TASKS, arms=arms, seeds=SEEDS, parts=parts, store=store, measure_key=self.key
        )
        for arm in arms.values():
            for group in arm.groups:
                for run in self.chosen(arm, group):
                    file = store.measure(self.key(run)).with_suffix(".safetensors")
                    file.parent.mkdir(parents=True, exist_ok=True)
                    save_totals(file, {task: self.totals(run, task) for task in group})

    def key(self, run: ArmRun) -> str:
        return f"{run.arm}-{'-'.join(run.tasks)}-{run.seed}"

    def totals(self, run: ArmRun, task: str) -> PictureTotals:
        raw = raw_totals(run.arm, task, run.seed)
        return PictureTotals(PICTURES, {name: torch.from_numpy(values) for name, values in raw.items()})

    def chosen(self, arm: Arm, group: tuple[str, ...]) -> list[ArmRun]:
        return [ArmRun(arm.name, group, 0.1, seed) for seed in SEEDS]

    def measure(self, run: ArmRun):
        headline = {"seg": "miou", "depth": "rmse"}
        metrics = {t: {headline[t]: float(by_hand(run.arm, t, run.seed, ONCE)[0])} for t in run.tasks}
        return Measured(metrics=metrics, num_pictures=6)


@pytest.fixture
def effects(tmp_path, monkeypatch):
    monkeypatch.setattr("garnish.comparing.analysis.effects.RESAMPLES", 1000)
    return Effects(Planned(tmp_path))


def test_the_draws_are_one_set_from_a_fixed_seed():
    assert RESAMPLES == 1000
    assert np.array_equal(resamples(6), DRAWS)


@pytest.mark.parametrize("name", ARMS)
def test_draws_of_an_arm_are_the_means_of_its_seeds_on_the_same_pictures(effects, name):
    for task in TASKS:
        assert effects.draws(ARMS[name], task) == pytest.approx(hand(name, task), rel=1e-12)
    again = Effects(effects.plan)  # read from the store, where they were kept
    assert again.draws(ARMS[name], "seg") == pytest.approx(hand(name, "seg"), rel=1e-12)


def test_kept_draws_of_another_number_are_drawn_anew(effects):
    run = effects.runs(ARMS["lora"], "seg")[0]
    assert len(drawn_of(effects.conditions, run, DRAWS)["seg"]) == 1000
    assert drawn_of(effects.conditions, run, DRAWS[:7])["seg"] == pytest.approx(by_hand("lora", "seg", 3, DRAWS[:7]))


@pytest.mark.parametrize("name", ["frozen", "lora"])
def test_differences_are_paired_and_in_the_metrics_own_unit(effects, name):
    found = effects.difference(ARMS[name])
    assert found.keys() == TASKS.keys()
    for task in TASKS:
        mean = (hand(name, task, ONCE) - hand("single", task, ONCE))[0]
        assert found[task].mean == pytest.approx(mean)
        assert list(found[task].interval) == pytest.approx(quantiles(hand(name, task) - hand("single", task)))
    assert effects.difference(ARMS["single"]) == {}


@pytest.mark.parametrize("name", ARMS)
def test_delta_m_is_against_the_mean_of_the_reference_and_its_interval_is_paired(effects, name):
    def delta(seg, depth, full_seg, full_depth):
        return 50 * ((seg - full_seg) / full_seg - (depth - full_depth) / full_depth)

    found = effects.delta_m(ARMS[name])
    full = [hand("single", task, ONCE)[0] for task in TASKS]
    values = [delta(*(by_hand(name, task, seed, ONCE)[0] for task in TASKS), *full) for seed in SEEDS]
    assert found.values == pytest.approx(values)
    assert found.mean == pytest.approx(sum(values) / 2, abs=1e-9)
    drawn = delta(*(hand(name, t) for t in TASKS), *(hand("single", t) for t in TASKS))
    assert list(found.interval) == pytest.approx(quantiles(drawn), abs=1e-9)


def test_the_gap_recovered_is_the_arms_way_from_frozen_to_full(effects):
    found, notes = effects.gap(ARMS["lora"])
    assert notes == [] and found.keys() == TASKS.keys()
    for task in TASKS:
        low, high = hand("frozen", task, ONCE)[0], hand("single", task, ONCE)[0]
        values = [(by_hand("lora", task, seed, ONCE)[0] - low) / (high - low) for seed in SEEDS]
        assert found[task].values == pytest.approx(values) and found[task].void is None
        assert found[task].mean == pytest.approx(np.mean(values)) and 0.3 < np.mean(values) < 0.95
        drawn = (hand("lora", task) - hand("frozen", task)) / (hand("single", task) - hand("frozen", task))
        assert list(found[task].interval) == pytest.approx(quantiles(drawn))
    assert effects.gap(ARMS["frozen"]) == effects.gap(ARMS["single"]) == ({}, [])


def test_a_gap_that_closes_in_many_draws_is_void_and_said(effects, monkeypatch):
    closing = {"frozen": (0.8, 2.0), "lora": (0.82, 1.2), "single": (0.801, 0.8)}
    monkeypatch.setattr("test_comparing_effects.LEVEL", closing)
    share = np.mean(hand("single", "seg") <= hand("frozen", "seg"))
    assert 0.03 < share < 0.9 and hand("single", "seg", ONCE) > hand("frozen", "seg", ONCE)
    anew = Effects(Planned(effects.conditions.store.folder / "closing"))
    found, notes = anew.gap(ARMS["lora"])
    why = f"full fine-tuning is no better than the frozen trunk in {100 * share:.0f} % of the resampled test sets"
    assert found["seg"] == Gap(mean=None, values=(), interval=None, void=why)
    assert notes == [f"seg: no gap recovered is told, for {why}."]
    assert found["depth"].void is None and found["depth"].interval is not None


def test_seeds_that_failed_are_left_out_of_every_figure(effects, monkeypatch):
    whole = effects.plan.measure
    lost = Failed(reason="diverged")
    monkeypatch.setattr(effects.plan, "measure", lambda run: lost if (run.arm, run.seed) == ("lora", 3) else whole(run))
    assert effects.draws(ARMS["lora"], "seg") == pytest.approx(by_hand("lora", "seg", 5, DRAWS))
    assert effects.mean(ARMS["lora"], "seg") == pytest.approx(by_hand("lora", "seg", 5, ONCE)[0])
    assert len(effects.delta_m(ARMS["lora"]).values) == 1


def test_a_reference_that_lacks_a_task_is_none(tmp_path):
    arms = {**ARMS, "single": Arm(name="single", role="single", methods=(gn.FullFineTuning(),), rates=(0.1,),
                                  groups=(("seg",),))}  # fmt: skip
    effects = Effects(Planned(tmp_path, arms))
    assert effects.reference("frozen") is arms["frozen"] and effects.reference("single") is None
    assert effects.delta_m(arms["lora"]) is None and effects.difference(arms["lora"]) == {}
    assert effects.gap(arms["lora"]) == ({}, [])


def test_who_is_dominated():
    """Another has no less Δm with no more parameters, and one of both is better; equals do not dominate each other."""
    arms = {"small": (1.0, 10), "worse": (0.9, 10), "large": (1.0, 20), "best": (3.0, 20), "twin": (3.0, 20),
            "middle": (1.0, 15), "unknown": None}  # fmt: skip
    found = dict(zip(arms, dominated(list(arms.values())), strict=True))
    assert [name for name, out in found.items() if out] == ["worse", "large", "middle"]
