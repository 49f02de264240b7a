"""Owners come and go in time that does not depend on the others, beside passes that run; each is one thing."""

from __future__ import annotations

import gc
import statistics
import threading
import time
import weakref
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import garnish as gn
import tiny
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.engine.attach import adapted_sites
from garnish.engine.context import ForwardContext
from garnish.engine.trunk import Trunk
from garnish.errors import BundleError, OptionError, SiteError

TASKS = {"seg": gn.Semantic(classes=5), "depth": gn.Depth()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def outputs(model, tasks=None):
    return model(tiny.pictures(2), tasks)


# ---- coming and going -----------------------------------------------------------------------------------------------

METHODS = {
    "LoRA": gn.LoRA(rank=2),
    "two": [gn.LoRA(rank=2), gn.BitFit()],
    "BitFit": gn.BitFit(),
    "MTLoRA": gn.MTLoRA(rank=2, task_rank=2),
    "Polyhistor": gn.PolyhistorLite(embedding=8, hidden=8),
    "side": gn.SideTuning(),
    "VPT": gn.VPT(prompts=2),
    "full": gn.FullFineTuning(),
}


@pytest.mark.parametrize("short", ["vit", "swin"])
@pytest.mark.parametrize("kind", METHODS)
def test_a_model_is_as_before_when_what_was_added_is_removed(kind, short):
    model = tiny.model(short, gn.LoRA(rank=2), tasks=("seg", "depth")).eval()
    before, names = outputs(model), set(model.own_tensors())
    held = len(list(model.parameters()))
    torch.manual_seed(3)
    model.add(METHODS[kind], {"a": TASKS["seg"], "b": TASKS["depth"]}, gn.LinearHead())
    tiny.randomise_own(model)  # also those of seg and depth, which is undone below
    changed = outputs(model, ["seg", "depth"])
    assert set(outputs(model)) == {"seg", "depth", "a", "b"} and not same(changed, before)
    model.remove(["b", "a"])
    assert list(model.tasks) == ["seg", "depth"] and set(model.own_tensors()) == names
    assert len(list(model.parameters())) == held and len(model.owners) == 1
    assert same(outputs(model), changed)
    model.add(METHODS[kind], {"a": TASKS["seg"], "b": TASKS["depth"]}, gn.LinearHead())  # the names are free again
    assert same(outputs(model, ["seg", "depth"]), changed)


def test_all_can_go_and_the_trunk_is_bare_then():
    model = tiny.model("vit", gn.LoRA(rank=2, per_task=True), tasks=("seg", "depth"))
    model.freeze(["depth"])
    x = model.prepare(tiny.pictures())
    bare = tiny.backbone("vit")
    for ours, theirs in zip(bare.frozen_tensors().values(), model.backbone.frozen_tensors().values(), strict=True):
        ours.copy_(theirs)
    model.remove(["seg", "depth"])
    assert not model.backbone.is_adapted and not model.tasks and not model.frozen_tasks
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model.backbone(x), bare(x), strict=True))
    assert outputs(model) == {}


def test_what_shares_goes_together_or_not_at_all():
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("seg", "depth", "normals"))
    model.add(gn.Frozen(), {"a": TASKS["depth"]})
    for tasks, line in (
        (["seg"], "remove: seg shares adapters with depth, normals; name all of them"),
        (["a", "dpth"], "remove: unknown task 'dpth'"),
    ):
        with pytest.raises(OptionError, match=line):
            model.remove(tasks)
    with pytest.raises(OptionError, match="expected a list of text"):
        model.remove("seg")
    assert list(model.tasks) == ["seg", "depth", "normals", "a"]
    model.remove(["a"])
    model.remove(["depth", "seg", "normals"])
    assert not model.tasks


def test_what_shares_a_decoder_goes_together():
    model = gn.adapt(tiny.backbone("swin"), gn.LoRA(rank=2, per_task=True), TASKS, gn.SharedBaseHead())
    with pytest.raises(OptionError, match="remove: depth shares a decoder with seg; name all of them"):
        model.remove(["depth"])
    model.remove(["depth", "seg"])
    assert not list(model.decoders.each())


def test_what_does_not_fit_leaves_a_model_as_it_was():
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("seg",)).eval()
    before, names, owners = outputs(model), set(model.own_tensors()), model.owners
    with pytest.raises(SiteError, match="rank 4000 exceeds"):
        model.add([gn.BitFit(), gn.LoRA(rank=4000)], {"a": TASKS["depth"]})
    assert set(model.own_tensors()) == names and model.owners == owners and same(outputs(model), before)


def test_a_removed_owner_leaves_nothing_alive():
    model = tiny.model("vit", gn.Frozen(), tasks=("seg",))
    model.add([gn.MTLoRA(rank=2, task_rank=2), gn.BitFit()], {"a": TASKS["seg"], "b": TASKS["depth"]})
    outputs(model)
    kept = [weakref.ref(owner) for owner in model.owners[1:]]
    kept += [weakref.ref(model.head("a"))]
    model.remove(["a", "b"])
    gc.collect()
    assert [ref() for ref in kept] == [None] * len(kept)


# ---- time -----------------------------------------------------------------------------------------------------------


def test_adding_and_removing_take_the_same_time_whoever_is_there():
    model = tiny.model("vit", gn.Frozen(), tasks=("seg",)).eval()

    def seconds(number: int) -> tuple[float, float]:
        start = time.process_time()
        model.add(gn.LoRA(rank=1), {f"t{number}": TASKS["depth"]})
        middle = time.process_time()
        if number % 2:
            model.remove([f"t{number}"])
        return middle - start, time.process_time() - middle

    seconds(-1)  # wrappers are placed once
    times = [seconds(number) for number in range(400)]
    for first, last in (
        ([t for t, _ in times[:40]], [t for t, _ in times[-40:]]),
        ([t for _, t in times[1:40:2]], [t for _, t in times[-39::2]]),
    ):
        assert statistics.median(last) < 2 * statistics.median(first) + 2e-4
    assert len(model.tasks) == 201


# ---- beside passes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LoRA", "BitFit", "MTLoRA", "side"])
def test_passes_run_beside_owners_that_come_and_go(kind):
    model = tiny.model("swin", gn.LoRA(rank=2), tasks=("seg", "depth")).eval()
    x, want, faults, stop = tiny.pictures(2), outputs(model), [], threading.Event()

    def run() -> None:
        with torch.no_grad():
            while not stop.is_set():
                got = model(x, ["seg", "depth"])
                whole = model(x)
                # beside others' rows products have more rows, which some processors round otherwise
                if not same(got, want) or not all(torch.allclose(whole[n], want[n], 1e-5, 1e-5) for n in want):
                    faults.append(got)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(12):
        model.add(METHODS[kind], {f"a{number}": TASKS["seg"], f"b{number}": TASKS["depth"]})
        if number % 3:
            model.remove([f"a{number}", f"b{number}"])
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults and len(model.tasks) == 2 + 2 * 4


def test_a_pass_ends_as_it_began_though_its_owner_is_removed_meanwhile():
    model = tiny.model("vit", gn.LoRA(rank=2, per_task=True), tasks=("seg", "depth")).eval()
    want = outputs(model)
    block = model.backbone.stages[1].blocks[0]["mlp"]

    def removing(*_) -> None:
        for name in list(model.tasks):
            model.remove([name])

    handle = block.register_forward_hook(removing)
    got = outputs(model)
    handle.remove()
    assert same(got, want) and not model.tasks


def test_predictions_run_beside_tasks_that_come_and_go():
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("seg",)).eval()
    picture, faults, stop = (tiny.pictures(1)[0] * 255).to(torch.uint8), [], threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                found = model.predict(picture)
                assert "seg" in found.maps and set(found.maps) <= set(found.tasks)
            except Exception as error:
                faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(60):
        model.add(gn.LoRA(rank=1), {"depth": TASKS["depth"]})
        model.remove(["depth"])
    stop.set()
    thread.join()
    assert not faults


def test_freezing_leaves_what_is_set_by_hand_on_others():
    model = tiny.model("vit", gn.LoRA(rank=2, per_task=True), tasks=("seg", "depth"))
    model.owner_of("depth").requires_grad_(False)
    model.freeze(["seg"])
    assert not any(p.requires_grad for p in model.owner_of("depth").parameters())
    assert all(p.requires_grad for p in model.head("depth").parameters())
    assert not any(p.requires_grad for p in (*model.owner_of("seg").parameters(), *model.head("seg").parameters()))


@pytest.mark.compile
def test_what_is_added_to_a_compiled_model_is_compiled_and_nothing_is_stored_twice():
    torch._dynamo.reset()
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("seg",)).eval()
    names = set(model.state_dict())
    model.compile(backend="eager")
    assert set(model.state_dict()) == names
    model.add(gn.LoRA(rank=2), {"depth": TASKS["depth"]})
    assert model.head("depth")._compiled_call_impl is not None
    outputs(model)


# ---- bundles --------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    trunk = tiny.backbone("vit")
    file = tmp_path / "trunk.safetensors"
    save_file({trunk.source_names[n]: t.detach().clone() for n, t in trunk.frozen_tensors().items()}, file)
    return file


def on(file, method, tasks):
    _, name, options = tiny.BACKBONES["vit"]
    model = gn.adapt(gn.backbone(name, str(file), options=options), method, tasks)
    tiny.randomise_own(model, seed=len("".join(tasks)))
    return model.eval()


def test_a_bundle_is_loaded_into_a_model_that_serves_others(weights, tmp_path):
    one = on(weights, gn.LoRA(rank=2), {"seg": TASKS["seg"]})
    two = on(weights, [gn.MTLoRA(rank=2, task_rank=2)], {"depth": TASKS["depth"], "fg": gn.Saliency()})
    two.save(tmp_path / "two", dtype="float32")
    before, want = outputs(one), outputs(two)
    assert one.load(tmp_path / "two") == ("depth", "fg")
    got = outputs(one)
    assert same({n: got[n] for n in want}, want) and torch.equal(got["seg"], before["seg"])
    with pytest.raises(BundleError, match="task 'depth' is there already"):
        one.load(tmp_path / "two")
    one.remove(["depth", "fg"])
    assert same(outputs(one), before)
    joined = gn.load([tmp_path / "two"])
    assert same(outputs(joined), want)


def test_a_bundle_of_another_backbone_is_not_loaded(weights, tmp_path):
    one = on(weights, gn.LoRA(rank=2), {"seg": TASKS["seg"]})
    one.save(tmp_path / "one")
    other = gn.adapt(tiny.backbone("vit", seed=1), gn.LoRA(rank=2), {"depth": TASKS["depth"]}).eval()
    before = outputs(other)
    with pytest.raises(BundleError, match="with fingerprint"):
        other.load(tmp_path / "one")
    assert same(outputs(other), before)


def test_no_task_is_seen_before_its_tensors_are_there(weights, tmp_path):
    two = on(weights, gn.LoRA(rank=2), {"depth": TASKS["depth"]})
    two.save(tmp_path / "two", dtype="float32")
    want, faults, stop = outputs(two)["depth"], [], threading.Event()
    model = on(weights, gn.Frozen(), {"seg": TASKS["seg"]})
    x = tiny.pictures(2)

    def run() -> None:
        with torch.no_grad():
            while not stop.is_set():
                got = model(x)
                if "depth" in got and not torch.equal(got["depth"], want):
                    faults.append(got)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(8):
        model.load(tmp_path / "two")
        model.remove(["depth"])
    stop.set()
    thread.join()
    assert not faults


def test_a_damaged_bundle_leaves_a_model_as_it_was(weights, tmp_path):
    two = on(weights, gn.LoRA(rank=2), {"depth": TASKS["depth"]})
    two.save(tmp_path / "two")
    data = bytearray((tmp_path / "two/weights.safetensors").read_bytes())
    data[-5] ^= 64
    (tmp_path / "two/weights.safetensors").write_bytes(bytes(data))
    model = on(weights, gn.Frozen(), {"seg": TASKS["seg"]})
    with pytest.raises(BundleError, match="SHA-256"):
        model.load(tmp_path / "two")
    assert list(model.tasks) == ["seg"] and len(model.owners) == 1


# ---- one owner, several networks ------------------------------------------------------------------------------------


class Net(nn.Module):
    """One number for all adapters."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))


class Times(Adapter):
    """``y + (f − 1) y``, f of a shared network."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self._net = (net,)
        self.here = nn.Parameter(torch.zeros(()))

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        return y * self._net[0].factor + self.here


@dataclass(frozen=True, kw_only=True)
class Shared(Method):
    """Multiplies by what one network says, at one role."""

    role: str = "fc1"

    def plan(self, backbone: Trunk) -> Plan:
        net = Net()
        sites = [s.name for s in backbone.sites() if s.role == self.role]
        return Plan({name: Times(net) for name in sites}, shared=net)


def test_two_methods_with_a_shared_network_each_keep_both(tmp_path, weights, monkeypatch):
    from garnish import registry

    known = registry.classes
    monkeypatch.setattr(
        registry, "classes", lambda kind: known(kind) | ({"Shared": Shared} if kind == "adapters" else {})
    )
    model = on(weights, [Shared(role="fc1"), Shared(role="proj")], {"seg": TASKS["seg"]})
    names = [n for n in model.own_tensors() if n.startswith("shared")]
    assert names == ["shared.seg.factor", "shared1.seg.factor"]
    with torch.no_grad():
        for name, factor in zip(names, (1.5, 0.5), strict=True):
            model.own_tensors()[name].fill_(factor)
    want = outputs(model)
    model.save(tmp_path / "b", dtype="float32")
    loaded = gn.load(tmp_path / "b")
    assert same(outputs(loaded), want)
    for name in names:  # both act
        with torch.no_grad():
            loaded.own_tensors()[name].add_(0.5)
        assert not same(outputs(loaded), want)
    tiny.one_loss(loaded.train()(tiny.pictures())).backward()
    assert all(loaded.own_tensors()[name].grad for name in names)


def test_wrappers_hold_nothing_and_stay_where_an_owner_went():
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("seg",)).eval()
    number = len(list(adapted_sites(model.backbone)))
    assert all(not list(w.children())[1:] for _, w in adapted_sites(model.backbone))
    model.remove(["seg"])
    assert len(list(adapted_sites(model.backbone))) == number and not model.backbone.is_adapted
