"""What a comparison keeps and by which names, and what it does about failures and damage: nothing here is trained."""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import garnish as gn
from comparing_cases import conditions, trained
from garnish.comparing import runs
from garnish.comparing import test_scores as measures
from garnish.comparing.analysis.totals_by_picture import PictureTotals, save_totals
from garnish.comparing.arms import ArmRun
from garnish.comparing.keys import key_of, step_content, training_content
from garnish.comparing.outcomes import Failed, Measured
from garnish.comparing.schedule import Job
from garnish.comparing.store import Store, kept_json
from garnish.comparing.workers import how_it_ended, note_death
from garnish.errors import BundleError, DataError, SiteError
from garnish.training.train_options import TrainOptions

KEY = "a" * 64
RUN = ArmRun("LoRA", ("seg",), 1e-3, 0)
#: another value of each option of training than its default (with steps=10)
OTHER: dict[str, Any] = {
    "steps": 11, "epochs": 2.0, "batch_size": 4, "accumulate": 2, "lr": 1e-2, "head_lr": 1e-2, "weight_decay": 0.1,
    "warmup": 3, "schedule": "poly", "clip": 2.0, "precision": "bf16-mixed", "devices": 2, "accelerator": "cpu",
    "strategy": "ddp", "seed": 7, "augment": None, "variants": 2, "cache": "kept", "cache_gb": 5.0, "workers": 2,
    "eval_every": 3, "eval_batch_size": 2, "eval_size": (32, 32), "eval_limit": 5, "patience": 2, "best_by": "seg.miou",
    "save_every": 3, "log_every": 3, "log": ("csv",), "checkpointing": True, "memory": "least", "compile": True,
    "memory_gb": 3.0,
    "balance": {"seg": 2.0}, "check_pictures": 3, "show": 2,
}  # fmt: skip
TOTALS = PictureTotals(("a", "b"), {"matrix": torch.arange(18).reshape(2, 3, 3), "thin": torch.zeros(2, 4).long()})
WITHOUT_EFFECT = {"workers", "save_every", "log_every", "log", "check_pictures", "cache", "cache_gb", "show"}
OF_A_STEP = {
    *("batch_size", "precision", "accelerator", "checkpointing", "augment", "balance", "eval_size", "clip"),
    *("memory", "memory_gb"),
}


def options(**changed: Any) -> TrainOptions:
    given = {"steps": 10} | changed
    if "epochs" in changed:
        del given["steps"]
    if "cache" in changed:
        given["variants"] = 1
    return TrainOptions(**given)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(TrainOptions)])
def test_an_option_is_in_the_key_of_a_run_unless_no_number_follows_from_it(name):
    base = options(variants=1) if name == "cache" else options()
    changed = options(**{name: OTHER[name]})
    assert (training_content(base) == training_content(changed)) is (name in WITHOUT_EFFECT)
    assert (step_content(base) == step_content(changed)) is (name not in OF_A_STEP)


def test_options_that_came_later_are_in_no_key_where_they_are_unset():
    """Else all that is in a store would be computed again."""
    assert not {"memory", "memory_gb"} & (training_content(options()).keys() | step_content(options()).keys())


def test_a_key_is_of_the_content_not_of_its_order():
    assert key_of({"a": 1, "b": [2, {"c": 3, "d": 4}]}) == key_of({"b": [2, {"d": 4, "c": 3}], "a": 1})
    assert len({key_of(c) for c in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {"a": "1"}, {"a": None})}) == 6
    assert len(key_of({})) == 64


def test_keys_follow_what_each_thing_is_made_of(tmp_path, mit_weights):
    def keys(
        *, arm: str = "LoRA rank=2", tasks=("seg", "depth"), rate=1e-3, seed=0, train=None, **data: Any
    ) -> list[str]:
        made = conditions(tmp_path / "report", mit_weights, train=train)
        if data:
            plain = {**made.recipe.plain, "data": {**made.recipe.plain["data"], **data}}
            made = type(made)(dataclasses.replace(made.recipe, plain=plain), made.options, made.trunk_facts)
        run = ArmRun(arm, tasks, rate, seed)
        return [made.key(run), made.measure_key(run), key_of(made.cost_content(run))]

    base = keys()
    assert keys() == base and len(set(base)) == 3

    def changed(**given: Any) -> list[bool]:
        return [one != other for one, other in zip(base, keys(**given), strict=True)]

    # of a run, of what is measured of it, of what it costs
    assert changed(test=5) == [False, True, False]
    assert changed(val=5) == [True, True, False]
    assert changed(rate=2e-3) == [True, True, False]
    assert changed(seed=1) == [True, True, False]
    assert changed(tasks=("seg",)) == [True] * 3
    assert changed(arm="heads only") == [True] * 3
    assert changed(train={"eval_size": [32, 32]}) == [True] * 3
    assert changed(train={"eval_batch_size": 2}) == [True, True, False]
    assert changed(train={"accumulate": 2}) == [True, True, False]
    assert changed(train={"workers": 1}) == [False] * 3


# ---- the store --------------------------------------------------------------------------------------------------


def write_checkpoint(store: Store) -> None:
    for name in ("last/state.safetensors", "best/bundle.json"):
        (store.training(KEY) / name).parent.mkdir(parents=True)
        (store.training(KEY) / name).touch()


def test_a_run_that_was_cut_off_goes_on_or_begins_anew(tmp_path):
    store = Store(tmp_path)
    assert store.begin(KEY, {"of": "it"}) is False and store.outcome(KEY, RUN) is None
    assert kept_json(store.run(KEY) / "what.json") == {"of": "it"}
    (store.training(KEY) / "log").mkdir(parents=True)  # killed before the first checkpoint
    assert store.begin(KEY, {}) is False and not store.training(KEY).exists()
    write_checkpoint(store)
    assert store.begin(KEY, {}) is True and (store.training(KEY) / "last/state.safetensors").exists()


def test_what_is_left_of_a_finished_and_of_a_failed_run(tmp_path):
    store = Store(tmp_path)
    write_checkpoint(store)
    failed, done = Failed(reason="x"), trained([(3, 0.5)])
    store.finish(KEY, failed)
    assert store.outcome(KEY, RUN) == failed and not store.training(KEY).exists()
    store.forget_failure(KEY)
    assert store.outcome(KEY, RUN) is None
    write_checkpoint(store)
    store.finish(KEY, failed)
    write_checkpoint(store)
    store.finish(KEY, done)
    assert store.outcome(KEY, RUN) == done, "that it was done once counts"
    assert sorted(p.name for p in store.training(KEY).iterdir()) == ["best"]


def test_one_at_a_time_and_others_are_told(tmp_path):
    store, order, said = Store(tmp_path), [], []
    held, done = threading.Event(), threading.Event()

    def first() -> None:
        with store.lock(KEY):
            held.set()
            done.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(10)
    with store.lock("b" * 64, said.append):  # another run is nobody's business
        assert not said

    def say(line: str) -> None:
        said.append(line)
        done.set()

    with store.lock(KEY, say, "LoRA, seed 0"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"] and len(said) == 1
    assert said[0].startswith("LoRA, seed 0: process ") and said[0].endswith("; waiting for it")


# ---- runs -------------------------------------------------------------------------------------------------------


def made(store: Store, **more: Any) -> Any:
    return SimpleNamespace(store=store, key=lambda run: KEY, content=lambda run: {"run": str(run)}, **more)


def test_a_run_is_trained_once_goes_on_and_is_made_again_where_its_result_is_damaged(tmp_path, monkeypatch, caplog):
    store, calls = Store(tmp_path), []

    def train(_, run, goes_on):
        calls.append(goes_on)
        return trained([(len(calls), 0.5)])

    monkeypatch.setattr(runs, "_trained", train)
    assert runs.carry_out(made(store), RUN) == trained([(1, 0.5)])
    assert runs.carry_out(made(store), RUN).best_step == 1 and calls == [False]
    result = store.run(KEY) / "result.json"
    result.write_bytes(result.read_bytes().replace(b"1", b"7", 1))
    with caplog.at_level(logging.WARNING):
        assert runs.carry_out(made(store), RUN).best_step == 2
    assert "result.json: is damaged (its SHA-256" in caplog.text and "it is made again" in caplog.text
    result.unlink()
    write_checkpoint(store)
    runs.carry_out(made(store), RUN)
    assert calls == [False, False, True]
    write_checkpoint_again = store.training(KEY) / "last"
    write_checkpoint_again.mkdir()  # a kill between the two steps of finishing
    runs.carry_out(made(store), RUN)
    assert len(calls) == 3 and not write_checkpoint_again.exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SiteError("no such site"), "no such site"),
        (ZeroDivisionError("x"), "ZeroDivisionError: x"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            "out of memory (CUDA out of memory. Tried); set a",
        ),
        (DataError("a.png: gone"), None),
        (OSError("disk"), None),
        (BundleError("x cannot be written"), None),
    ],
)
def test_what_is_wrong_with_an_arm_is_kept_and_what_is_wrong_with_the_machine_is_raised(
    tmp_path, monkeypatch, error, reason
):
    def train(*given):
        if isinstance(error, BundleError):
            raise error from OSError("no space")
        raise error

    monkeypatch.setattr(runs, "_trained", train)
    store = Store(tmp_path)
    if reason is None:
        with pytest.raises(type(error)):
            runs.carry_out(made(store), RUN)
        assert store.outcome(KEY, RUN) is None
        with store.lock(KEY):  # which is free again
            return
    outcome = runs.carry_out(made(store), RUN)
    assert isinstance(outcome, Failed) and outcome.reason.startswith(reason)
    assert store.outcome(KEY, RUN) == outcome


def test_the_cache_is_shared_out_over_jobs(tmp_path, monkeypatch):
    data = SimpleNamespace(key=lambda index: "k")
    monkeypatch.setattr(runs, "can_cache", lambda model: "" if model == "frozen" else "changes the first block")
    given = made(Store(tmp_path), training=options(variants=2, cache_gb=6.0), options=SimpleNamespace(jobs=3))
    assert runs.cache_options(given, "frozen", data) == {"cache": str(tmp_path / "features"), "cache_gb": 2.0}
    assert runs.cache_options(given, "lora", data)["cache"] is None
    assert runs.cache_options(given, "frozen", SimpleNamespace(key=lambda index: None))["cache"] is None
    given.training = TrainOptions(steps=1, variants=2, cache="mine")
    assert runs.cache_options(given, "frozen", data)["cache"] == "mine"
    given.training = options()
    assert runs.cache_options(given, "frozen", data)["cache"] is None


def test_a_worker_that_died_fails_its_own_run_unless_that_was_done(tmp_path):
    store = Store(tmp_path)
    conditions = made(store)
    assert how_it_ended(-signal.SIGKILL) == "by signal 9; most likely out of memory"
    assert (how_it_ended(3), how_it_ended(-signal.SIGTERM)) == ("with code 3", "by signal 15")
    told = note_death(conditions, Job("train", RUN), "it ended")
    assert told.reason == "it ended" and store.outcome(KEY, RUN) == told
    store.forget_failure(KEY)
    store.finish(KEY, trained([(1, 0.5)]))
    assert note_death(conditions, Job("train", RUN), "it ended") == trained([(1, 0.5)])
    other = made(Store(tmp_path / "other"))
    assert note_death(other, Job("measure", RUN), "gone").status == "failed" and not (tmp_path / "other").exists()


# ---- measures ---------------------------------------------------------------------------------------------------


def test_damaged_measures_are_made_again(tmp_path, monkeypatch, caplog):
    store = Store(tmp_path)
    totals = {"seg": TOTALS}
    counted = []

    def evaluate_by_picture(model, test, **given):
        counted.append(given)
        return {"seg": {"miou": 0.5}}, totals

    monkeypatch.setattr(measures, "evaluate_by_picture", evaluate_by_picture)
    monkeypatch.setattr(measures, "open_bundle", lambda *given: None)
    training = options(eval_size=(32, 48), eval_batch_size=3)
    given = made(
        store,
        measure_key=lambda run: KEY,
        parts=SimpleNamespace(test=lambda tasks: [0, 1]),
        training=training,
        tasks={"seg": gn.Semantic(classes=3)},
    )
    wanted = Measured(metrics={"seg": {"miou": 0.5}}, num_pictures=2)
    assert measures.measured(given, RUN) == wanted == measures.measured(given, RUN)
    assert counted == [{"size": (32, 48), "batch_size": 3}]
    for number, suffix in enumerate((".safetensors", ".json")):
        file = store.measure(KEY).with_suffix(suffix)
        damaged = bytearray(file.read_bytes())
        damaged[-5] ^= 1
        file.write_bytes(bytes(damaged))
        with caplog.at_level(logging.WARNING):
            assert measures.measured(given, RUN) == wanted
        assert len(counted) == 2 + number
    assert "is measured again" in caplog.text and "is made again" in caplog.text


def test_draws_are_kept_with_their_number_and_made_again_where_damaged(tmp_path, monkeypatch):
    store, made_of = Store(tmp_path), []
    save_totals(
        store.measure(KEY).with_suffix(".safetensors"),
        {"seg": TOTALS},
    )

    def draws(task, totals, counts):
        made_of.append(len(counts))
        return np.arange(len(counts)) * 0.5

    monkeypatch.setattr(measures, "headline_draws", draws)
    parts = SimpleNamespace(test=lambda tasks: [0, 1])
    given = made(store, measure_key=lambda run: KEY, tasks={"seg": gn.Semantic(classes=3)}, parts=parts)
    counts = np.ones((4, 2), np.int64)
    for _ in range(2):
        assert measures.drawn_of(given, RUN, counts)["seg"].tolist() == [0, 0.5, 1, 1.5]
    assert measures.drawn_of(given, RUN, counts[:3])["seg"].tolist() == [0, 0.5, 1] and made_of == [4, 3]
    file = store.measure(KEY).with_suffix(".draws.safetensors")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 64
    file.write_bytes(bytes(damaged))
    assert measures.drawn_of(given, RUN, counts[:3])["seg"].tolist() == [0, 0.5, 1] and made_of == [4, 3, 3]
