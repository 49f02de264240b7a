"""Ladder side tuning: maps of every task and gradients of every side tensor, in float64, against its formulas.

The trunk's own states come from a bare trunk without gradients; the transcription beside it takes named tensors and
shares no code with the package. Shape letters: I images, H W map, d width of a stage, w = d/ρ width beside it.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

import tiny
from garnish.engine.context import ForwardContext
from garnish.engine.loop import Flow, run_units
from garnish.model.model import Model
from plain_trunks import affine, gelu, layer_norm
from whole_trunk import TASKS, double_model, encoder_leaves, heads_input, method, plain_input, same

Named = dict[str, Tensor]

#: ε of the side network's norms, which no formula names, and the temperature of its gates
EPS, TAU = 1e-5, 0.1

#: sides without padding, and no map square
SIDES = {"swin": (64, 96), "dinov2": (56, 70), "mit": (64, 96)}


# ---- the formulas ---------------------------------------------------------------------------------------------------


def below(p: Named, prefix: str) -> Named:
    return {name.removeprefix(f"{prefix}."): t for name, t in p.items() if name.startswith(f"{prefix}.")}


def gate(p: Named, s: Tensor, x: Tensor) -> Tensor:
    """``μ s + (1 − μ) P x``, ``μ = σ(α / τ)``."""
    mu = 1 / (1 + torch.exp(-p["alpha"] / TAU))
    return mu * s + (1 - mu) * affine(x, p["project.weight"], p["project.bias"])


def side_block(p: Named, s: Tensor) -> Tensor:
    """``s + conv(norm s)``, depthwise 3×3 with a border of zeros; then ``s + MLP(norm s)``."""
    _, height, width, _ = s.shape
    z = torch.zeros_like(s[:, :1]).expand(-1, 1, -1, -1)
    normed = torch.cat([z, layer_norm(s, p["norm1.weight"], p["norm1.bias"], EPS), z], dim=1)
    z = torch.zeros_like(normed[:, :, :1])
    normed = torch.cat([z, normed, z], dim=2)
    mixed = p["mix.bias"]
    for i in range(3):
        for j in range(3):
            mixed = mixed + p["mix.weight"][:, 0, i, j] * normed[:, i : i + height, j : j + width]
    s = s + mixed
    hidden = gelu(affine(layer_norm(s, p["norm2.weight"], p["norm2.bias"], EPS), p["fc1.weight"], p["fc1.bias"]))
    return s + affine(hidden, p["fc2.weight"], p["fc2.bias"])


def down(p: Named, s: Tensor) -> Tensor:
    """To the next stage's grid: a convolution whose stride is its kernel's side."""
    return conv2d(s.permute(0, 3, 1, 2), p["weight"], p["bias"], stride=p["weight"].shape[-1]).permute(0, 2, 3, 1)


def ladder(p: Named, states: list[list[Tensor]], maps: list[Tensor]) -> list[Tensor]:
    """``s_l = block_l(μ_l s + (1 − μ_l) P_l x_l)``; a map is ``f + U s`` at each stage's end.

    ``s`` begins as a linear layer of what enters the first block; each stage's states are (I, d, H, W), at its
    beginning and behind each of its blocks.
    """
    s = affine(states[0][0].permute(0, 2, 3, 1), p["start.weight"], p["start.bias"])
    out = []
    for i, (stage, f) in enumerate(zip(states, maps, strict=True)):
        s = down(below(p, f"downs.{i - 1}"), s) if i else s
        for b, x in enumerate(stage[1:]):
            s = side_block(below(p, f"blocks.{i}.{b}"), gate(below(p, f"gates.{i}.{b}"), s, x.permute(0, 2, 3, 1)))
        up = affine(s, p[f"ups.{i}.weight"], p[f"ups.{i}.bias"])
        out.append(f + up.permute(0, 3, 1, 2))
    return out


# ---- by hand --------------------------------------------------------------------------------------------------------


def named(**values: object) -> Named:
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}


def test_gate_by_hand():
    # μ = σ(ln 3) = 3/4; P x + b = 2·5 + 6
    p = named(**{"alpha": 0.1 * math.log(3), "project.weight": [[2.0]], "project.bias": [6.0]})
    s, x = torch.full((1, 1, 1, 1), 8.0).double(), torch.full((1, 1, 1, 1), 5.0).double()
    assert gate(p, s, x).item() == pytest.approx(0.75 * 8 + 0.25 * 16, rel=1e-12)


def test_side_block_by_hand():
    """On 1×2 positions of two channels, whose norm is (−1, 1) but for ε."""
    kernel = torch.arange(18.0).view(2, 1, 3, 3).tolist()
    p = named(**{"norm1.weight": [1.0, 2.0], "norm1.bias": [0.0, 1.0], "mix.weight": kernel, "mix.bias": [0.5, 0.0]})
    p |= named(**{"norm2.weight": [0.0, 0.0], "norm2.bias": [1.0, 0.0]})
    p |= named(**{"fc1.weight": [[1.0, 7.0]], "fc1.bias": [0.0], "fc2.weight": [[1.0], [2.0]], "fc2.bias": [0.0, 3.0]})
    s = torch.tensor([[[[-1e4, 1e4], [0.0, 2e4]]]]).double()
    one = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # GELU(1)
    # normed: (−1, 3) at both; kernel weights of the middle row: 3 4 5 and 12 13 14
    added = [[-(4 + 5) + 0.5 + one, 3 * (13 + 14) + 2 * one + 3], [-(3 + 4) + 0.5 + one, 3 * (12 + 13) + 2 * one + 3]]
    assert (side_block(p, s) - s)[0, 0].tolist() == [pytest.approx(row, abs=1e-6) for row in added]


# ---- the whole trunk ------------------------------------------------------------------------------------------------


@cache
def pixels(short: str) -> Tensor:
    return tiny.pictures(2, *SIDES[short]).double()


@torch.no_grad()
def trunk_states(short: str, images: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Of a bare trunk: the stream at each stage's beginning and behind each of its blocks, and the feature maps."""
    trunk = tiny.backbone(short).double().eval()
    states: list[list[Tensor]] = [[] for _ in trunk.stages]
    ctx = ForwardContext(grid=(0, 0), num_prefix=trunk.num_prefix)
    maps = run_units(trunk, Flow(images, ctx), None, watch=lambda x, stage: states[stage].append(x.clone())).maps
    assert [len(stage) for stage in states] == [1 + len(stage.blocks) for stage in trunk.stages]
    return states, list(maps)


def side_tensors(model: Model) -> dict[str, Named]:
    """Owner ("seg+depth" or one task) → the tensors beside the trunk; nothing else is trained in the encoder."""
    found: dict[str, Named] = {}
    for name, tensor in encoder_leaves(model).items():
        kind, owner, leaf = name.split(".", 2)
        assert kind == "side", name
        found.setdefault(owner, {})[leaf] = tensor
    return found


@pytest.mark.parametrize("options", [{}, {"reduction": 4, "mlp_ratio": 1.5}], ids=["defaults", "wider"])
@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per-task"])
@pytest.mark.parametrize("short", SIDES)
def test_ladder_beside_the_whole_trunk(short, per_task, options):
    model = double_model(short, method("SideTuning", per_task=per_task, **options))
    owned = side_tensors(model)
    assert owned.keys() == (set(TASKS) if per_task else {"+".join(TASKS)})
    pictures = pixels(short)
    states, maps = trunk_states(short, plain_input(model, pictures))
    of_owner = {owner: ladder(p, states, maps) for owner, p in owned.items()}
    want = {task: of_owner[task if per_task else "+".join(TASKS)] for task in TASKS}
    got = heads_input(model, pictures)
    # what is added is no rounding error beside the maps, and differs between tasks that own theirs
    assert all(tiny.far(a, f) > 1e-3 for a, f in zip(want["seg"], maps, strict=True))
    assert all((tiny.far(a, b) > 1e-3) is per_task for a, b in zip(got["seg"], got["depth"], strict=True))
    same(got, want, encoder_leaves(model))


@pytest.mark.parametrize("short", SIDES)
def test_trunk_keeps_nothing_for_the_backward_pass(short):
    model = double_model(short, method("SideTuning"))
    pictures = pixels(short).clone().requires_grad_()
    total = sum(f.sum() for maps in heads_input(model, pictures).values() for f in maps)
    assert torch.autograd.grad(total, pictures, allow_unused=True) == (None,)


@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per-task"])
@pytest.mark.parametrize("short", SIDES)
def test_ladder_starts_as_the_frozen_trunk(short, per_task):
    """α and U (its bias as well) are zero; so the maps are the trunk's, bit for bit."""
    added = method("SideTuning", per_task=per_task)
    model = tiny.model(short, added, tasks=TASKS, own=False).double()
    for p in side_tensors(model).values():
        zeros = {name for name, t in p.items() if not t.any()}
        assert zeros >= {name for name in p if name.endswith("alpha") or name.startswith("ups.")}
        assert not zeros & {name for name in p if name.endswith(".weight") and not name.startswith("ups.")}
    _, maps = trunk_states(short, plain_input(model, pixels(short)))
    for ours in heads_input(model, pixels(short)).values():
        assert all(torch.equal(a, b) for a, b in zip(ours, maps, strict=True))
