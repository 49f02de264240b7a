"""Methods with a part for each task that leaves the trunk at its feature maps: VMT-Adapter, its Lite form, MTLoRA.

Maps of every task and gradients of every own tensor, in float64, against plain forwards of the tiny Swin. The
transcriptions take named tensors and share no code with the package. Shape letters: R rows, d width, m bottleneck,
r rank.
"""

from __future__ import annotations

import inspect
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import garnish
import tiny
from garnish.model.model import Model
from plain_trunks import DEPTHS, HEADS, SHIFT, SwinTrunk, affine, gelu
from whole_trunk import (
    TASKS,
    Parts,
    built,
    double_model,
    encoder_leaves,
    heads_input,
    method,
    parts,
    pixels,
    plain,
    plain_input,
    same,
)

Named = dict[str, Tensor]


# ---- the formulas ---------------------------------------------------------------------------------------------------


def vmt(p: Named, h: Tensor) -> Tensor:
    """``U σ(D h + b_D) + b_U``, to be scaled and added to the MLP's residual branch."""
    return affine(gelu(affine(h, p["down.weight"], p["down.bias"])), p["up.weight"], p["up.bias"])


def vmt_lite(p: Named, h: Tensor) -> Tensor:
    """``U σ(D h + b_D) + b_U`` with ``U = Dᵀ`` and a diagonal gate of one factor a channel: ``diag(g) Dᵀ``."""
    hidden = gelu(affine(h, p["down.weight"], p.get("down.bias")))
    return p["gate"] * affine(hidden, p["down.weight"].t()) + p["up_bias"]


def of_task(p: Named, f: Tensor) -> Tensor:
    """``γ_t ⊙ f + β_t`` on a map (R, d, H, W)."""
    return p["scale"].reshape(-1, 1, 1) * f + p["shift"].reshape(-1, 1, 1)


def low_rank(p: Named | None, x: Tensor, scale: float) -> Tensor | float:
    """``s B A x``."""
    return 0.0 if p is None else scale * affine(affine(x, p["lora_a"]), p["lora_b"])


class MTLoRATrunk(SwinTrunk):
    """Swin whose linear layers have shared low-rank updates; each task has its own stream through last blocks.

    Attributes:
        shared: site → A and B of all tasks.
        own: task → site → A and B of that task.
        add_shared: whether a task's layer has the shared update as well.
        merged: whether maps are taken behind the next merging.
    """

    shared: Parts
    own: dict[str, Parts]
    scale: float
    add_shared: bool
    merged: bool

    def linear(self, name: str, x: Tensor) -> Tensor:
        """``y = W x + b + s B A x``."""
        return super().linear(name, x) + low_rank(self.shared.get(name), x, self.scale)

    def task_linear(self, task: str, name: str, x: Tensor, x_t: Tensor) -> Tensor:
        """``y_t = W x + b + s B_t A_t x_t``: the frozen product is that of the shared input."""
        y = affine(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"])
        if self.add_shared:
            y = y + low_rank(self.shared.get(name), x, self.scale)
        return y + low_rank(self.own[task].get(name), x_t, self.scale)

    def last_block(self, name: str, x: Tensor, heads: int, shift: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The shared stream and each task's behind a stage's last block."""
        proj, fc1, fc2 = f"{name}.attn.proj", f"{name}.mlp.fc1", f"{name}.mlp.fc2"
        context, _ = self.attention(f"{name}.attn", self.norm(f"{name}.attn.norm", x), heads, shift)
        h = x + self.linear(proj, context)
        z = self.norm(f"{name}.mlp.norm", h)
        a = gelu(self.linear(fc1, z))
        streams = {}
        for task in self.own:
            h_t = x + self.task_linear(task, proj, context, context)
            z_t = self.norm(f"{name}.mlp.norm", h_t)
            a_t = gelu(self.task_linear(task, fc1, z, z_t))
            streams[task] = h_t + self.task_linear(task, fc2, a, a_t)
        return h + self.linear(fc2, a), streams

    def task_maps(self, pictures: Tensor) -> dict[str, list[Tensor]]:
        x = self.stem(pictures)
        maps: dict[str, list[Tensor]] = {task: [] for task in self.own}
        for s, depth in enumerate(DEPTHS):
            x = self.merge(s, x) if s else x
            for b in range(depth - 1):
                x = self.block(f"stages.{s}.blocks.{b}", x, HEADS[s], SHIFT * (b % 2))
            x, streams = self.last_block(f"stages.{s}.blocks.{depth - 1}", x, HEADS[s], SHIFT * ((depth - 1) % 2))
            for task, y in streams.items():
                y = self.merge(s + 1, y) if self.merged and s + 1 < len(DEPTHS) else y
                maps[task].append(y.permute(0, 3, 1, 2))
        return maps


# ---- by hand --------------------------------------------------------------------------------------------------------


def named(**values: object) -> Named:
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}


def test_vmt_by_hand():
    p = named(**{"down.weight": [[1.0, 2.0]], "down.bias": [-1.0], "up.weight": [[1.0], [-2.0]], "up.bias": [0.5, 0.0]})
    g = vmt(p, torch.tensor([1.0, 0.5]).double())
    one = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # GELU(1)
    assert g.tolist() == pytest.approx([one + 0.5, -2 * one], rel=1e-12)
    f = of_task(named(scale=[2.0, 3.0], shift=[0.0, 1.0]), torch.tensor([[[[5.0]], [[7.0]]]]))
    assert f.flatten().tolist() == [10.0, 22.0]


def test_vmt_lite_by_hand():
    p = named(**{"down.weight": [[1.0, 2.0]], "down.bias": [-1.0], "gate": [10.0, 100.0], "up_bias": [0.5, 0.0]})
    one = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    g = vmt_lite(p, torch.tensor([1.0, 0.5]).double())
    assert g.tolist() == pytest.approx([10 * one + 0.5, 200 * one], rel=1e-12)


def test_mtlora_layer_by_hand():
    # W = 2, b = 1, x = 3, x_t = 5; shared B A = 7, own B A = 11, s = 4
    trunk = MTLoRATrunk(named(**{"l.weight": [[2.0]], "l.bias": [1.0]}))
    trunk.shared = {"l": named(lora_a=[[7.0]], lora_b=[[1.0]])}
    trunk.own = {"seg": {"l": named(lora_a=[[1.0]], lora_b=[[11.0]])}}
    trunk.scale, trunk.add_shared = 4.0, False
    x, x_t = torch.tensor([3.0]).double(), torch.tensor([5.0]).double()
    assert trunk.linear("l", x).item() == 7 + 4 * 21
    assert trunk.task_linear("seg", "l", x, x_t).item() == 7 + 4 * 55
    trunk.add_shared = True
    assert trunk.task_linear("seg", "l", x, x_t).item() == 7 + 4 * 21 + 4 * 55


# ---- VMT-Adapter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "formula", "options"),
    [
        pytest.param("VMTAdapter", vmt, {"reduction": 4, "scale": 0.3}, marks=built("VMTAdapter")),
        pytest.param("VMTAdapterLite", vmt_lite, {"reduction": 4}, marks=built("VMTAdapterLite")),
    ],
)
def test_vmt_on_the_whole_trunk(name, formula, options):
    """``y = h + MLP(LN h) + s g(h)`` runs on for all tasks together; each task scales and shifts its own maps."""
    chosen = method(name, **options)
    model = double_model("swin", chosen)
    shared = parts(model)
    assert shared.keys() == {site.name for site in model.backbone.sites() if site.name.endswith("mlp.branch")}
    assert all(
        p["down.weight"].shape == (p["down.weight"].shape[1] // 4, p["down.weight"].shape[1]) for p in shared.values()
    )
    scale = getattr(chosen, "scale", 1.0)
    pictures = pixels("swin").clone().requires_grad_()

    def edit(site: str, x: Tensor, y: Tensor) -> Tensor:
        return y + scale * formula(shared[site], x) if site in shared else y

    maps = plain("swin", model, edit).maps(plain_input(model, pictures))
    want = {}
    for task in TASKS:
        own = parts(model, task)
        assert own.keys() == {f"features.{s}" for s in range(4)}
        want[task] = [of_task(own[f"features.{s}"], f) for s, f in enumerate(maps)]
    same(heads_input(model, pictures), want, {**encoder_leaves(model), "pictures": pictures})


#: tiny Swin: two blocks of each width
WIDTHS = (24, 48, 96, 192)
S1, S2, L = 2 * sum(WIDTHS), 2 * sum(d**2 for d in WIDTHS), sum(WIDTHS)


def size_of(model: Model, prefix: str) -> int:
    return sum(t.numel() for n, t in model.trained_parameters().items() if n.startswith(prefix))


@built("VMTAdapter")
def test_vmt_count_and_start():
    """``2 S2/ρ + (1 + 1/ρ) S1`` shared, and 2 L a task where its part is at stage ends; starts as the frozen trunk."""
    model = tiny.model("swin", method("VMTAdapter", reduction=4), tasks=TASKS, own=False)
    assert size_of(model, "adapters.") == 2 * S2 // 4 + S1 + S1 // 4 + len(TASKS) * 2 * L
    assert all(not p["up.weight"].any() and not p["up.bias"].any() for p in parts(model).values())
    starts_as_frozen(model)


@built("VMTAdapterLite")
def test_vmt_lite_starts_as_the_frozen_trunk():
    model = tiny.model("swin", method("VMTAdapterLite"), tasks=TASKS, own=False)
    assert all(p["down.weight"].any() and not p["gate"].any() for p in parts(model).values())
    starts_as_frozen(model)


def starts_as_frozen(model: Model) -> None:
    pictures = pixels("swin").float()
    maps = SwinTrunk(tiny.backbone("swin").frozen_tensors()).maps(plain_input(model, pictures).float())
    for task in TASKS:
        for ours, theirs in zip(heads_input(model, pictures)[task], maps, strict=True):
            assert tiny.far(ours, theirs) <= 1e-5


# ---- MTLoRA ---------------------------------------------------------------------------------------------------------

TAKES_TAPS = "taps" in inspect.signature(garnish.backbone).parameters
OPTIONS = {"rank": 3, "task_rank": 2, "scale": 1.5}


@built("MTLoRA")
@pytest.mark.parametrize(
    "options",
    [{}, {"add_shared": True}, {"plus": True}, {"plus": True, "add_shared": True}],
    ids=lambda o: "+".join(o) or "matrix",
)
@pytest.mark.parametrize(
    "taps",
    [
        None,
        pytest.param("merged", marks=pytest.mark.skipif(not TAKES_TAPS, reason="not built yet: backbone(taps=)")),
    ],
)
def test_mtlora_on_the_whole_trunk(options, taps):
    model = double_model("swin", method("MTLoRA", **OPTIONS, **options), taps=taps)
    trunk = MTLoRATrunk(plain("swin", model).t)
    trunk.shared, trunk.own = parts(model), {task: parts(model, task) for task in TASKS}
    trunk.scale, trunk.add_shared, trunk.merged = 1.5, options.get("add_shared", False), taps == "merged"
    pictures = pixels("swin").clone().requires_grad_()
    want = trunk.task_maps(plain_input(model, pictures))
    leaves = {**encoder_leaves(model), "pictures": pictures}

    def dead(name: str) -> bool:
        # nothing reads the shared stream behind the last block but what tasks take of it
        last = "stages.3.blocks.1.mlp.fc2" in name
        return last and not options.get("add_shared", False) and not any(f":{t}." in name for t in TASKS)

    same(heads_input(model, pictures), want, leaves, dead=dead)


@built("MTLoRA")
@pytest.mark.parametrize("plus", [False, True])
def test_mtlora_parts(plus):
    """Which layers have which updates, what is tuned besides, and how many numbers that is."""
    model = tiny.model("swin", method("MTLoRA", **OPTIONS, plus=plus), tasks=TASKS, own=False)
    roles = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    linears = {f"stages.{s}.blocks.{b}.{role}" for s in range(4) for b in range(2) for role in roles}
    reductions = {f"stages.{s}.enter.reduction" for s in (1, 2, 3)}
    assert parts(model).keys() == linears | (reductions if plus else set())
    for task in TASKS:
        assert parts(model, task).keys() == {f"stages.{s}.blocks.1.{role}" for s in range(4) for role in roles[1:]}
    tuned = {name.split(".", 2)[2] for name in model.own_tensors() if name.startswith("tuned.")}
    frozen = model.backbone.frozen_tensors()
    extras = {n for n in frozen if "norm" in n or "relative_position" in n or n.startswith("stem.patch_embed")}
    assert tuned == extras | (set() if plus else {f"{name}.weight" for name in reductions})
    low = sum(6 * 3 * d for d in WIDTHS[:3]) if plus else 0  # r (4 d + 2 d) each
    assert size_of(model, "adapters.") == 16 * 3 * S1 + low + len(TASKS) * 2 * 12 * L


@built("MTLoRA")
def test_mtlora_starts_as_the_frozen_trunk():
    model = tiny.model("swin", method("MTLoRA"), tasks=TASKS, own=False)
    for own in (parts(model), *(parts(model, task) for task in TASKS)):
        assert all(p["lora_a"].any() and not p["lora_b"].any() for p in own.values())
    starts_as_frozen(model)


class Masks:
    """Dropout by one factor a channel, a new one for each call, so that windows do not matter."""

    def __init__(self) -> None:
        self.calls = 0
        self.of: dict[str, Tensor] = {}

    def __call__(self, x: Tensor, p: float, training: bool = True) -> Tensor:
        if not p or not training:  # as torch's
            return x
        keep = torch.rand(x.shape[-1], generator=torch.Generator().manual_seed(self.calls)) > p
        self.calls += 1
        return x * keep.to(x.dtype) / (1 - p)

    def once(self, name: str, x: Tensor) -> Tensor:
        """The input of a layer, or a part of it, with the mask that the layer's first call drew."""
        if name not in self.of:
            self.of[name] = self(torch.ones_like(x[(0,) * (x.ndim - 1)]), 0.5)
        return x * self.of[name]


class DroppedMTLoRATrunk(MTLoRATrunk):
    """As the released ``MTLoRALinear``: x is dropped once, behind ``W x``; a task without x_t reads the dropped x."""

    masks: Masks

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = affine(x, self.t[f"{name}.weight"], self.t.get(f"{name}.bias"))
        if name not in self.shared:
            return y
        return y + low_rank(self.shared[name], self.masks.once(name, x), self.scale)

    def task_linear(self, task: str, name: str, x: Tensor, x_t: Tensor) -> Tensor:
        y = affine(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"])
        dropped = self.masks.once(name, x)
        if self.add_shared:
            y = y + low_rank(self.shared[name], dropped, self.scale)
        return y + low_rank(self.own[task][name], dropped if name.endswith("proj") else x_t, self.scale)


@built("MTLoRA")
@pytest.mark.parametrize("add_shared", [False, True])
def test_mtlora_drops_once_and_its_tasks_read_that_where_they_have_no_input_of_their_own(add_shared, monkeypatch):
    model = double_model("swin", method("MTLoRA", **OPTIONS, add_shared=add_shared, dropout=0.5))
    trunk = DroppedMTLoRATrunk(plain("swin", model).t)
    trunk.shared, trunk.own = parts(model), {task: parts(model, task) for task in TASKS}
    trunk.scale, trunk.add_shared, trunk.merged, trunk.masks = 1.5, add_shared, False, Masks()
    want = trunk.task_maps(plain_input(model, pixels("swin")))
    model.train()
    masks = Masks()
    drops = SimpleNamespace(dropout=masks, linear=F.linear, conv2d=F.conv2d)
    monkeypatch.setattr("garnish.adapters.layers.low_rank.F", drops)
    got = heads_input(model, pixels("swin"))
    assert masks.calls == trunk.masks.calls == len(trunk.shared)
    same(got, want, {})


@built("MTLoRA")
def test_mtlora_learns_its_tasks_update_of_fc1_one_step_after_the_others():
    """First step with a gradient, from the formula: B_t at proj and fc2 1, A_t there 2; at fc1 B_t 2 and A_t 3."""
    model = tiny.model("swin", method("MTLoRA", **OPTIONS, dropout=0.0), tasks=TASKS, own=False).train()
    own = {n: p for n, p in model.trained_parameters().items() if ":seg." in n and "stages.0.blocks.1" in n}
    optimizer = torch.optim.SGD(model.trained_parameters().values(), lr=0.1)
    began: dict[str, int] = {}
    for step in (1, 2, 3):
        optimizer.zero_grad()
        heads_input(model, pixels("swin").float())["seg"][0].square().mean().backward()
        for name, parameter in own.items():
            if parameter.grad is not None and parameter.grad.any():
                began.setdefault(".".join(name.split(".")[-4:]), step)
        optimizer.step()
    first = {("lora_b", False): 1, ("lora_a", False): 2, ("lora_b", True): 2, ("lora_a", True): 3}
    assert len(began) == len(own) == 6
    assert {name: first[name[-6:], "fc1" in name] for name in began} == began
