"""The engines of torch: each row as if it were alone, bundles that come and go, faults that stay with their row."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import band_cases
import garnish as gn
import tiny
from garnish import registry
from garnish.checking.allocations import AllocationLimit
from garnish.errors import BundleError, GarnishError, OptionError
from garnish.model.model import Model
from garnish.serving.asked import Ticket
from garnish.serving.batcher import Batcher
from garnish.serving.engine import Engine, Loaded, Row
from garnish.serving.merged_engine import MergedEngine
from garnish.serving.torch_engine import TorchEngine

SIZES = [(64, 64), (61, 83)]


def saved(short: str, method: Any, folder: Path, *, seed: int = 1, **given: Any) -> Path:
    model = tiny.model(short, method, **given)
    tiny.randomise_own(model, seed=seed)
    return gn.save(model, folder, dtype="float32")


def bare(short: str) -> Model:
    return Model(tiny.backbone(short))


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, *size)).astype(np.uint8)


def joint(short: str, folder: Path) -> Path:
    torch.manual_seed(0)
    tasks = {name: registry.build("tasks", *spec) for name, spec in tiny.TASKS.items()}
    model = gn.adapt(tiny.backbone(short), gn.LoRA(rank=2, per_task=True), tasks, tiny.example("heads", "DeMT"))
    tiny.randomise_own(model)
    return gn.save(model, folder, dtype="float32")


def together_and_alone(engine: Engine, rows: list[Row]) -> float:
    """The largest difference of a row's output in the batch from that of the row alone, over its largest value."""
    worst = 0.0
    for row, found in zip(rows, engine.run(rows), strict=True):
        (alone,) = engine.run([row])
        assert isinstance(found, dict) and isinstance(alone, dict), (found, alone)
        assert list(found) == [(b.name, task) for b, tasks in row.asked for task in tasks] == list(alone)
        for key, out in found.items():
            assert out.dtype == np.float32 and out.shape[1:] == row.picture.shape[1:] == alone[key].shape[1:]
            worst = max(worst, float(np.abs(out - alone[key]).max() / np.abs(alone[key]).max()))
    return worst


@pytest.mark.parametrize("short", ["mit", "vit", "swin"])
def test_rows_of_mixed_bundles_are_as_alone(short, tmp_path):
    """In float64: random weights may turn the rounding of float32 into 1e-4 of a row."""
    methods: dict[str, Any] = {"lora": gn.LoRA(rank=2), "again": gn.LoRA(rank=3), "bottleneck": gn.AdaptFormer()}
    methods |= {"streams": gn.MTLoRA()} if tiny.refusals("MTLoRA", short) == () else {}
    engine, bundles = TorchEngine(bare(short).double()), {}
    for number, (name, method) in enumerate(methods.items()):
        bundles[name] = engine.load(name, saved(short, method, tmp_path / name, seed=number))
    if short != "vit":
        bundles["joint"] = engine.load("joint", joint(short, tmp_path / "joint"))
    every = tuple(bundles.values())
    for size in SIZES:
        rows = [Row(picture(size, k), ((one, ("depth", "seg")),)) for k, one in enumerate(every)]
        rows += [Row(picture(size, 7), tuple((one, ("normals",)) for one in every)), rows[0]]
        assert together_and_alone(engine, rows) <= 1e-6  # outputs are rounded to float32
        for row, found in zip(
            rows[: len(every)] if size == SIZES[0] else (), engine.run(rows), strict=False
        ):  # as the bundle read by itself
            ((bundle, tasks),) = row.asked
            model = gn.load(tmp_path / bundle.name, backbone=tiny.backbone(short)).double()
            with torch.inference_mode():
                want = model(torch.from_numpy(row.picture)[None], list(tasks))
            assert isinstance(found, dict)
            for task in tasks:
                assert tiny.far(torch.from_numpy(found[bundle.name, task]), want[task][0]) <= 1e-6


def test_rows_of_a_trained_trunk_are_as_alone_in_float32(tmp_path):
    engine, bundles = TorchEngine(Model(gn.backbone("garnish_b0"))), []
    for number, method in enumerate([gn.LoRA(rank=4), gn.LoRA(rank=8), gn.AdaptFormer()]):
        torch.manual_seed(number)
        model = gn.adapt(gn.backbone("garnish_b0"), method, {"seg": gn.Semantic(classes=5), "depth": gn.Depth()})
        with torch.no_grad():
            for parameter in model.trained_parameters().values():
                parameter.add_(0.02 * torch.randn_like(parameter))
        bundles.append(engine.load(str(number), gn.save(model, tmp_path / str(number))))
    for size in [(96, 96), (101, 75)]:
        rows = [Row(picture(size, k), ((bundles[k % 3], ("seg",)),)) for k in range(5)]
        rows.append(Row(picture(size, 7), tuple((one, ("seg", "depth")) for one in bundles)))
        assert together_and_alone(engine, rows) <= 1e-5


def test_pictures_of_other_bands_have_rows_of_their_own(tmp_path):
    model = band_cases.model(
        "mit", gn.LoRA(rank=2), tasks=["seg", "depth"], bands=band_cases.FIVE, known=band_cases.statistics()
    )
    gn.save(model, tmp_path / "five", dtype="float32")
    engine = TorchEngine(bare("mit"))
    five = engine.load("five", tmp_path / "five")
    rgb = engine.load("rgb", saved("mit", gn.LoRA(rank=2), tmp_path / "rgb"))
    values = band_cases.pictures().numpy()
    rows = [Row(one, ((five, ("depth", "seg")),)) for one in values]
    assert five.bands == band_cases.FIVE and rgb.bands.is_rgb
    assert rows[0].key != Row(picture((64, 64), 0), ((rgb, ("seg",)),)).key
    assert together_and_alone(engine, rows) <= 1e-5


def test_what_is_loaded_is_described_and_unloaded(tmp_path):
    engine = TorchEngine(bare("mit"))
    model = tiny.model("mit", gn.LoRA(rank=2))
    gn.save(model, tmp_path / "one", extra={"trained_at": {"seg": {"size": [64, 96], "scale": [1, 1]}}})
    before = {name: t.clone() for name, t in engine.model.backbone.frozen_tensors().items()}
    one, two = engine.load("one", tmp_path / "one"), engine.load("one", tmp_path / "one")
    assert set(one.decodings) == set(tiny.TASKS) == set(one.kinds) and one.kinds["seg"] == "Semantic"
    assert one.nbytes == sum(t.numel() * t.element_size() for t in model.own_tensors().values())
    assert not set(one.handle.names.values()) & set(two.handle.names.values())
    assert one.told["trained_at"] == {} or one.told["trained_at"] == {"seg": {"size": [64, 96], "scale": [1, 1]}}
    engine.unload(one)
    assert set(engine.model.tasks) == set(two.handle.names.values())
    engine.unload(two)
    three = engine.load("one", tmp_path / "one")
    assert set(three.handle.names.values()).isdisjoint({*one.handle.names.values(), *two.handle.names.values()})
    engine.unload(three)
    assert not engine.model.tasks and not engine.model.owners
    assert all(torch.equal(t, before[name]) for name, t in engine.model.backbone.frozen_tensors().items())


def test_a_bundle_that_was_unloaded_goes_on_for_who_holds_it(tmp_path):
    engine = TorchEngine(bare("mit"))
    one = engine.load("one", saved("mit", gn.LoRA(rank=2), tmp_path / "one"))
    row = Row(picture((64, 64), 0), ((one, ("seg",)),))
    (before,) = engine.run([row])
    engine.unload(one)
    (after,) = engine.run([row])
    assert isinstance(before, dict) and isinstance(after, dict)
    assert np.array_equal(before["one", "seg"], after["one", "seg"])


def test_a_row_whose_output_is_not_finite_fails_alone(tmp_path):
    engine = TorchEngine(bare("mit"))
    good = engine.load("good", saved("mit", gn.LoRA(rank=2), tmp_path / "good"))
    bad = engine.load("bad", saved("mit", gn.LoRA(rank=2), tmp_path / "bad", seed=2))
    with torch.no_grad():  # finite, but beyond float32 once it is multiplied
        for parameter in bad.handle.part.decoders[bad.handle.names["depth"]].module.parameters():
            parameter.fill_(3e38)
    rows = [Row(picture((64, 64), k), ((one, ("depth",)),)) for k, one in enumerate([good, bad, good])]
    first, failed, last = engine.run(rows)
    assert isinstance(first, dict) and isinstance(last, dict)
    assert isinstance(failed, GarnishError) and "bad/depth is not finite" in str(failed)


def test_a_pass_that_fails_is_run_row_by_row(tmp_path, monkeypatch):
    engine = TorchEngine(bare("mit"))
    one = engine.load("one", saved("mit", gn.LoRA(rank=2), tmp_path / "one"))
    forward = Model.forward

    def tight(self, images, *args, **kwargs):
        if len(images) > 1 or int(images[0, 0, 0, 0]) == 13:
            raise torch.OutOfMemoryError("no room\nfor this")
        return forward(self, images, *args, **kwargs)

    monkeypatch.setattr(Model, "forward", tight)
    pictures = [picture((64, 64), k) for k in range(3)]
    pictures[1][:] = 13
    batcher, ticket = Batcher(engine), Ticket.within(60)
    with batcher.holding(ticket):
        futures = [batcher.submit(Row(p, ((one, ("seg",)),)), ticket) for p in pictures]
        assert isinstance(futures[0].result(60), dict) and isinstance(futures[2].result(60), dict)
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            futures[1].result(60)
    batcher.close()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_trunk_in_half_precision_is_refused_as_no_bundle_knows_it(dtype):
    with pytest.raises(OptionError, match="float32"):
        TorchEngine(bare("vit").to(dtype))


def refused(engine: Engine, folder: Path, says: str) -> None:
    with pytest.raises(BundleError) as caught:
        engine.load("one", folder)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_refused_changes_nothing(tmp_path, monkeypatch):
    engine = TorchEngine(bare("mit"))
    other = saved("vit", gn.LoRA(rank=2), tmp_path / "other")
    refused(engine, other, "belongs to backbone")
    refused(engine, tmp_path / "none", "no such bundle")
    sound = saved("mit", gn.LoRA(rank=2), tmp_path / "sound")
    monkeypatch.setattr(gn.Depth, "decoding", None)
    refused(engine, sound, "task 'depth' (Depth) names no decoding")
    monkeypatch.undo()
    rgb = tiny.model("mit", gn.LoRA(rank=2), tasks=["seg"])
    rgb.add(gn.LoRA(rank=2), {"deep": gn.Depth()}, bands=band_cases.FIVE, statistics=band_cases.statistics())
    refused(engine, gn.save(rgb, tmp_path / "both"), "different bands")
    (sound / "weights.safetensors").write_bytes(b"x")
    refused(engine, sound, "differs from what was saved")
    assert not engine.model.tasks and not engine.model.owners
    with pytest.raises(OptionError, match="has tasks"):
        TorchEngine(rgb)


def test_a_trunk_that_is_not_finite_is_refused():
    model = bare("mit")
    with torch.no_grad():
        next(model.backbone.body.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(GarnishError, match="not finite"):
        TorchEngine(model)


def test_bundles_come_and_go_beside_passes(tmp_path):
    engine = TorchEngine(bare("mit"))
    kept = engine.load("kept", saved("mit", gn.LoRA(rank=2), tmp_path / "kept"))
    for number in range(2):
        saved("mit", gn.LoRA(rank=2), tmp_path / str(number), seed=number)
    row = Row(picture((64, 64), 0), ((kept, ("seg",)),))
    (want,) = engine.run([row])
    done, wrong = threading.Event(), []

    def come_and_go(number: int) -> None:
        while not done.is_set():
            one: Loaded = engine.load(f"one{number}", tmp_path / str(number))
            engine.unload(one)

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        (found,) = engine.run([row])
        assert isinstance(want, dict)
        if not (isinstance(found, dict) and np.array_equal(found["kept", "seg"], want["kept", "seg"])):
            wrong.append(found)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong and set(engine.model.tasks) == set(kept.handle.names.values())


@pytest.mark.parametrize(
    ("short", "method"),
    [
        ("mit", gn.LoRA(rank=2)),
        ("vit", gn.SSF()),
        ("swin", gn.MTLoRA()),
        ("vit", gn.AdaptFormer()),
        ("mit", gn.BitFit()),
    ],
)
def test_the_one_bundle_is_folded(short, method, tmp_path):
    saved(short, method, tmp_path / "one")
    plain, merged = TorchEngine(bare(short).double()), MergedEngine(bare(short).double())
    beside, folded = plain.load("one", tmp_path / "one"), merged.load("one", tmp_path / "one")
    pictures = [picture((64, 64), k) for k in range(2)]
    rows = [[Row(p, ((one, ("seg", "depth")),)) for p in pictures] for one in (beside, folded)]
    for want, found in zip(plain.run(rows[0]), merged.run(rows[1]), strict=True):
        assert isinstance(want, dict) and isinstance(found, dict)
        for key, out in want.items():
            assert np.abs(found[key] - out).max() <= 1e-6 * np.abs(out).max(), key  # outputs are rounded to float32
    assert folded.nbytes <= beside.nbytes and (merged.step, merged.trunk) == (plain.step, plain.trunk)
    if isinstance(method, gn.LoRA):
        assert not any(True for owner in merged._folded.owners for _ in owner.placed())  # nothing is beside the trunk
    refused(merged, saved(short, gn.LoRA(rank=2), tmp_path / "two"), "takes no other")


def test_a_description_is_bounded_once_and_its_numbers_are_checked_each_time(tmp_path, monkeypatch):
    engine, entered = TorchEngine(bare("mit")), []
    enter = AllocationLimit.__enter__
    monkeypatch.setattr(AllocationLimit, "__enter__", lambda self: entered.append(self) or enter(self))
    for seed in range(3):
        engine.load("one", saved("mit", gn.LoRA(rank=2), tmp_path / str(seed), seed=seed))
    assert len(entered) == 1
    engine.load("other", saved("mit", gn.LoRA(rank=3), tmp_path / "other"))
    assert len(entered) == 2
    facts = json.loads((tmp_path / "0" / "bundle.json").read_text())
    facts["tasks"]["seg"]["labels"][0] = "another"  # of a task that was sound without it
    (tmp_path / "0" / "bundle.json").write_text(json.dumps(facts))
    (tmp_path / "0" / "SHA256SUMS").unlink()
    refused(engine, tmp_path / "0", "tasks.seg.labels")
    weights = (tmp_path / "1" / "weights.safetensors").read_bytes()
    (tmp_path / "1" / "weights.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    refused(engine, tmp_path / "1", "SHA-256")


@pytest.mark.parametrize("method", sorted(registry.classes("adapters")))
def test_what_is_unloaded_is_freed_at_once(method, tmp_path):
    """A server collects garbage seldom: of a bundle that has gone nothing may wait for it."""
    short = next((one for one in ("vit", "mit", "swin") if tiny.refusals(method, one) == ()), None)
    if short is None:
        pytest.skip(f"{method} is tried on other families")
    engine, picture_ = TorchEngine(bare(short)), picture((64, 64), 0)
    folder = saved(short, tiny.example("adapters", method), tmp_path / "a")
    loaded = engine.load("a", folder)
    engine.run([Row(picture_, ((loaded, ("seg",)),))])
    left = [weakref.ref(tensor) for owner in engine.model.owners for tensor in owner.parameters()]
    left += [weakref.ref(tensor) for task in engine.model.tasks for tensor in engine.model.head(task).parameters()]
    assert left
    gc.collect()
    gc.disable()
    try:
        engine.unload(loaded)
        del loaded
        assert not [ref for ref in left if ref() is not None]
    finally:
        gc.enable()
