"""What every adaptation method must do, on every family, shared or owned by each task.

See ``cases.py`` for what "every" is. What leaves the process (bundles, compiled and exported models) is in
``test_adapters_leaving.py``, refusals are in ``test_adapters_refused.py``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import garnish
import tiny
from conformance.cases import FAMILIES, every, every_fast, label, made, near_the_identity, plans, product
from garnish import registry
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.engine.attach import adapted_sites
from garnish.engine.context import ForwardContext
from garnish.engine.folding import folded_trunk
from garnish.errors import SiteError
from garnish.model.model import Model


def test_every_method_can_be_built_and_has_a_page_of_options():
    for name in registry.classes("adapters"):
        method = tiny.example("adapters", name)
        assert registry.build("adapters", name, registry.options_of(method)) == method
        assert (method.__doc__ or "").strip()


@every
def test_starts_at_the_identity(case, short, per_task):
    model = made(case, short, per_task, own=False)
    bare = made("Frozen", short, False, own=False)
    for task in model.tasks:
        bare.head(task).load_state_dict(model.head(task).state_dict())
    x = model.prepare(tiny.pictures())
    near = near_the_identity(model)
    with torch.no_grad():
        expected = bare.backbone(x)
        for owner in model.owners:
            for got, want in zip(model.backbone(x, owner), expected, strict=True):
                if near:
                    assert 0 < tiny.far(got, want) < near
                else:
                    assert torch.equal(got, want)
        # the same of mixed rows
        expected = bare(tiny.pictures(), tiny.MIX)
        for task, out in model(tiny.pictures(), tiny.MIX).items():
            # outputs of fresh heads are small, so differences weigh more than in the maps
            assert tiny.far(out, expected[task]) < (2 * near or 1e-5)


@every
def test_what_is_declared_learns_and_nothing_else_changes(case, short, per_task):
    model = made(case, short, per_task, own=False)
    declared = model.trained_parameters()
    assert sum(p.numel() for p in declared.values()) == planned(case, short, per_task) + heads_of(model)
    before = {n: t.clone() for n, t in model.backbone.frozen_tensors().items()}
    fingerprint = model.backbone.fingerprint()
    own = {n: t.detach().clone() for n, t in declared.items()}

    names = {name for name, _ in tiny.method_cases()[case]}
    dead = tiny.dead_tensors(model, steps=max(tiny.STEPS_TO_LEARN.get(name, 2) for name in names))
    last = f"stages.{len(model.backbone.stages) - 1}.blocks.{len(model.backbone.stages[-1].blocks) - 1}"
    unread = tuple(last + end for name in names for end in tiny.UNREAD.get(name, ()))
    shared = [n for n in declared if ":" not in n]
    # what is said to be read by nothing is, and nothing else
    assert dead == [n for n in shared if n.split(".", 2)[2].startswith(unread or "-")]

    ids = {id(p) for p in declared.values()}
    assert not [n for n, p in model.named_parameters() if p.grad is not None and id(p) not in ids]
    after = model.backbone.frozen_tensors()
    assert list(after) == list(before)
    assert not any(t.requires_grad for t in after.values())
    assert [n for n in before if not torch.equal(before[n], after[n])] == []
    assert model.backbone.fingerprint() == fingerprint
    assert any(not torch.equal(own[n], t) for n, t in declared.items())


def planned(case: str, short: str, per_task: bool) -> int:
    """Numbers that the plans say are trained in the encoder."""
    frozen = tiny.backbone(short).frozen_tensors()
    found = plans(case, short, per_task)
    one = sum(p.numel() for plan in found for a in plan.adapters.values() for p in a.parameters())
    for module in [m for plan in found for m in (plan.side, plan.shared) if m is not None]:
        one += sum(p.numel() for p in module.parameters())
    one += sum(frozen[n].numel() for n in {n for plan in found for n in plan.tuned})
    parts = sum(p.numel() for plan in found if plan.own for a in plan.own().values() for p in a.parameters())
    return (len(tiny.TASKS) if per_task else 1) * one + len(tiny.TASKS) * parts


def heads_of(model: Model) -> int:
    return sum(p.numel() for task in model.tasks for p in model.head(task).parameters())


@every
def test_mixed_rows_equal_rows_alone(case, short, per_task):
    # in float64, where nothing but a row that saw another's tensors can differ by this much; the grid is not square
    model = made(case, short, per_task).double()
    x = tiny.pictures(3, 64, 112).double()
    rows_equal_rows_alone(model, x)
    if per_task and case != "Frozen":
        with torch.no_grad():
            prepared = model.prepare(x)
            maps = [model.backbone(prepared, owner)[-1] for owner in model.owners if not owner.parts]
        assert min(tiny.far(maps[0], maps[1]), tiny.far(maps[1], maps[2]), tiny.far(maps[0], maps[2])) > 1e-2


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c in ("LoRA", "Mona") else pytest.mark.slow) for c in tiny.method_cases()]
)
@pytest.mark.parametrize("short", ["dinov2", "swin"])
@pytest.mark.parametrize("apart", [False, True])
def test_rows_joined_from_the_stem_equal_rows_alone(case, short, apart, monkeypatch):
    # one forked pass also where owners share no more than the stem, which is run in compiled models only; residuals
    # for all rows at once, as on a GPU, or owner by owner, as for larger pictures on a CPU
    monkeypatch.setattr("garnish.engine.units.Body.end_of_first_block", lambda body: -1)
    monkeypatch.setattr("garnish.engine.context.APART_FROM", 0)
    monkeypatch.setattr("garnish.engine.context.APART_ON", ("cpu",) if apart else ())
    rows_equal_rows_alone(made(case, short, True).double(), tiny.pictures().double())


@pytest.mark.parametrize("case", ["MTLoRA", "VMTAdapter"])
@pytest.mark.parametrize("short", ["dinov2", "swin"])
def test_streams_run_at_once_equal_streams_one_by_one(case, short, monkeypatch):
    monkeypatch.setattr("garnish.engine.context.APART_ON", ())
    model, x = made(case, short, False).double(), tiny.pictures().double()
    rows_equal_rows_alone(model, x)
    with torch.no_grad():
        at_once = model(x, tiny.MIX)
        monkeypatch.setattr("garnish.engine.context.APART_ON", ("cpu",))
        one_by_one = model(x, tiny.MIX)
    one_by_one_with_gradients = model(x, tiny.MIX)
    for task, expected in at_once.items():
        assert tiny.far(one_by_one[task], expected) < 1e-10
        assert tiny.far(one_by_one_with_gradients[task], expected) < 1e-10


@torch.no_grad()
def rows_equal_rows_alone(model: Model, x: Tensor) -> None:
    mixed, full = model(x, tiny.MIX), model(x)
    for task in model.tasks:
        wanting = [i for i, tasks in enumerate(tiny.MIX) if task in tasks]
        alone = torch.cat([model(x[i : i + 1], [task])[task] for i in range(len(x))])
        assert mixed[task].shape[0] == len(wanting)
        assert tiny.far(full[task], alone) < 1e-10
        assert tiny.far(mixed[task], alone[wanting]) < 1e-10
        # the pictures differ, so rows in another order would be seen
        assert tiny.far(alone[:1], alone[1:2]) > 1e-2


@every
def test_every_site_fires_exactly_once(case, short, per_task, monkeypatch):
    monkeypatch.setattr("garnish.engine.context.APART_ON", ())  # where residuals run owner by owner, once for each
    model = made(case, short, per_task)
    model.check_sites()
    wrappers = [w for _, w in adapted_sites(model.backbone)]
    # a map that tasks' own adapters change alone is made from the bare one when a head reads it
    read = [
        s.kind == "feature" and any(owner.streamed and w.of(owner) is not None for owner in model.owners)
        for s, w in adapted_sites(model.backbone)
    ]
    fired = [0] * len(wrappers)
    for index, wrapper in enumerate(wrappers):

        def count(*_, index=index):
            fired[index] += 1

        wrapper.register_forward_hook(count)
    passes = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        model(tiny.pictures(), tiny.MIX)
    # owners that share nothing take a pass each; every owner is wanted by some picture
    assert fired == [0 if by_task else len(passes) for by_task in read]
    assert len(passes) in (1, len(tiny.TASKS))


@every
def test_merged_equals_unmerged(case, short, per_task):
    merges(case, short, per_task, torch.float64, 1e-10)


@every_fast
def test_merged_equals_unmerged_in_float32(case, short, per_task):
    merges(case, short, per_task, torch.float32, 1e-5)


def merges(case: str, short: str, per_task: bool, dtype: torch.dtype, bound: float) -> None:
    """Merge the last owner and compare; where it cannot be merged, see that this is said."""
    model = made(case, short, per_task).to(dtype)
    found = plans(case, short, per_task)
    can = all(type(a).merged is not Adapter.merged for plan in found for a in plan.adapters.values())
    can = can and not any(plan.own or plan.side or plan.prompts for plan in found)
    x = model.prepare(tiny.pictures().to(dtype))
    owner = model.owners[-1]
    with torch.no_grad():
        expected = model.backbone(x, owner)
        if not can:
            with pytest.raises(SiteError) as caught:
                folded_trunk(model.backbone, owner)
            assert "\n" not in str(caught.value)
        else:
            plain = folded_trunk(model.backbone, owner)
            assert not list(adapted_sites(plain))
            names = tiny.backbone(short).frozen_tensors()
            # a layer without bias may get one
            gained = [n for n in plain.frozen_tensors() if n not in names]
            assert [n for n in plain.frozen_tensors() if n in names] == list(names)
            assert all(n.endswith(".bias") and n.removesuffix("bias") + "weight" in names for n in gained)
            for got, want in zip(plain(x), expected, strict=True):
                assert tiny.far(got, want) <= bound
            if case != "Frozen":
                bare = tiny.backbone(short).to(dtype)(x)[-1]
                assert tiny.far(expected[-1], bare) > 1e-2
        for got, want in zip(model.backbone(x, owner), expected, strict=True):
            assert torch.equal(got, want)


@every
def test_deep_copies_are_independent(case, short, per_task):
    model = made(case, short, per_task)
    x = tiny.pictures()
    with torch.no_grad():
        before = model(x, tiny.MIX)
        copied = copy.deepcopy(model)
        for task, out in copied(x, tiny.MIX).items():
            assert torch.equal(out, before[task])
    shared = {t.data_ptr() for t in copied.own_tensors().values()} & {
        t.data_ptr() for t in model.own_tensors().values()
    }
    assert not shared
    with torch.no_grad():
        for owner in copied.owners:
            for tensor in owner.tensors().values():
                # not by a factor alone, which a norm behind it would take back
                tensor.mul_(1.1).add_(torch.linspace(-0.1, 0.1, tensor.numel()).view_as(tensor))
        changed = copied(x, tiny.MIX)
        for task, out in model(x, tiny.MIX).items():
            assert torch.equal(out, before[task])
            # the copy runs on its own adapters, not on the original's
            assert (tiny.far(changed[task], out) > 1e-3) == (case != "Frozen")
    tiny.dead_tensors(copied)
    with torch.no_grad():
        for task, out in model(x, tiny.MIX).items():
            assert torch.equal(out, before[task])


@every
def test_checkpointing_keeps_gradients(case, short, per_task):
    found = []
    for checkpointing in (False, True):
        model = made(case, short, per_task)
        model.backbone.checkpointing = checkpointing
        model.train()
        torch.manual_seed(3)
        # both forward passes are under way before the one backward pass
        first = tiny.one_loss(model(tiny.pictures(), tiny.MIX))
        second = tiny.one_loss(model(tiny.pictures(), ["normals", "seg"]))
        (first + 3 * second).backward()
        found.append({n: p.grad for n, p in model.trained_parameters().items()})
    for name, want in found[0].items():
        assert (want is None) == (found[1][name] is None), name
        if want is not None and want.abs().max() > 0:
            assert tiny.far(found[1][name], want) < 1e-5, name


@every
def test_odd_sizes_come_back_whole(case, short, per_task):
    model = made(case, short, per_task)
    x = tiny.pictures(2, 97, 131)
    high, wide = (-(-s // model.backbone.multiple) * model.backbone.multiple for s in (97, 131))
    padded = torch.tensor(model.backbone.mean).view(1, 3, 1, 1).expand(2, 3, high, wide).clone()
    padded[..., :97, :131] = x
    with torch.no_grad():
        outputs, whole = model(x, tiny.MIX[1:]), model(padded, tiny.MIX[1:])
    for task, out in outputs.items():
        assert out.shape == (sum(task in t for t in tiny.MIX[1:]), model.tasks[task].channels, 97, 131)
        assert out.isfinite().all()
        assert tiny.far(out, whole[task][..., :97, :131]) < 1e-5


def test_every_family_takes_part():
    built = {cls for cls, _, _ in tiny.BACKBONES.values()}
    missing = set(registry.classes("backbones")) - built
    assert not missing, f"add a tiny {', '.join(missing)} to BACKBONES in tests/tiny.py"
    assert {tiny.BACKBONES[short][0] for short in FAMILIES} == built


def test_the_fast_suite_has_every_method_shared_and_per_task_on_two_families():
    fast = {p.id for p in product(only_fast=True)}
    for name in registry.classes("adapters"):
        for one in (False, True):
            assert {label(name, "dinov2", one), label(name, "swin", not one)} <= fast or {
                label(name, "dinov2", not one),
                label(name, "swin", one),
            } <= fast
    for short in FAMILIES:
        assert label("LoRA", short, True) in fast


# ---- things that must be caught ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TwoZeros(Method):
    """Both matrices zero: never learns."""

    def plan(self, backbone):
        sites = [s for s in backbone.sites() if s.kind == "sublayer"]
        return Plan({s.name: TwoZerosAdapter(backbone.features[s.stage].channels) for s in sites})


class TwoZerosAdapter(Adapter):
    def __init__(self, width: int):
        super().__init__()
        self.down = nn.Parameter(torch.zeros(4, width))
        self.up = nn.Parameter(torch.zeros(width, 4))

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        return y + F.gelu(y @ self.down.t()) @ self.up.t()


def test_two_zero_matrices_are_seen_dead():
    model = tiny.model("dinov2", TwoZeros(), own=False)
    dead = tiny.dead_tensors(model)
    assert len(dead) == 2 * 8
    assert all(n.endswith(("down", "up")) for n in dead)


class ReadsBehind(nn.Module):
    """Attention that reads ``qkv.weight`` itself, as several timm families do."""

    def __init__(self, attn: nn.Module):
        super().__init__()
        self.qkv, self.proj = attn.qkv, attn.proj

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.qkv.weight, self.qkv.bias).chunk(3, dim=-1)[2]
        return self.proj(out)


class CallsTwice(ReadsBehind):
    def forward(self, x: Tensor) -> Tensor:
        return self.proj((self.qkv(x) + self.qkv(2 * x)).chunk(3, dim=-1)[0])


class NeverCalls(ReadsBehind):
    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


@pytest.mark.parametrize("planted", [ReadsBehind, CallsTwice, NeverCalls])
def test_a_site_that_does_not_fire_once_is_named(planted):
    trunk = tiny.backbone("vit")
    branch = trunk.stages[2].blocks[0]["attn"].branch
    branch.layer = planted(branch.layer)
    specs = {"seg": registry.build("tasks", *tiny.TASKS["seg"])}
    model = garnish.adapt(trunk, garnish.LoRA(rank=2), specs)
    with pytest.raises(SiteError, match=r"qkv|weight") as caught:
        model.check_sites()
    assert "\n" not in str(caught.value)
    if planted is not ReadsBehind:
        assert "stages.2.blocks.0.attn.qkv" in str(caught.value)


def test_frozen_and_training_owners_of_one_method_keep_their_own_mode():
    # dropout acts on the new task's adapters only, also where both owners' rows share a pass
    specs = {name: registry.build("tasks", *tiny.TASKS[name]) for name in ("seg", "depth")}
    method = garnish.AdaptFormer(bottleneck=8, dropout=0.5)
    model = garnish.adapt(tiny.backbone("swin"), method, {"seg": specs["seg"]})
    tiny.randomise_own(model, seed=1)
    model.add(method, {"depth": specs["depth"]}, freeze_others=True)
    tiny.randomise_own(model, seed=2)
    x = tiny.pictures()
    with torch.no_grad():
        model.eval()
        quiet = model(x)
        model.train()
        loud = model(x)
    assert tiny.far(loud["seg"], quiet["seg"]) < 1e-5
    assert tiny.far(loud["depth"], quiet["depth"]) > 1e-2
