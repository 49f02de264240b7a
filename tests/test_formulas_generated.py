"""Polyhistor-Lite's sum of Kronecker products and the gate of ladder side-tuning, in float64.

What generates a template and what a side layer is differ between readings of the papers; these two formulas do not.
Shape letters: s width multiple of a stage, d width of a stage, m bottleneck.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from garnish import registry
from garnish.model.model import Model
from plain_trunks import affine
from whole_trunk import BOUND, built, double_model, encoder_leaves, method, pixels

# ---- the formulas ---------------------------------------------------------------------------------------------------


def kronecker_sum(kernels: Tensor, templates: Tensor) -> Tensor:
    """``W = Σ_i K_i ⊗ T_i``: (s, s, s) and (s, a, b) → (s a, s b)."""
    s, (a, b) = len(kernels), templates.shape[1:]
    w = torch.zeros(s * a, s * b, dtype=templates.dtype)
    for kernel, template in zip(kernels, templates, strict=True):
        for row in range(s):
            for column in range(s):
                w[row * a : row * a + a, column * b : column * b + b] += kernel[row, column] * template
    return w


def rearranged(w: Tensor, s: int) -> tuple[Tensor, Tensor]:
    """(s a, s b) → (s², a b) where ``K ⊗ T`` becomes ``vec(K) vec(T)ᵀ``, and where ``T ⊗ K`` does (Van Loan)."""
    a, b = w.shape[0] // s, w.shape[1] // s
    outer = w.reshape(s, a, s, b).permute(0, 2, 1, 3).reshape(s * s, a * b)
    inner = w.reshape(a, s, b, s).permute(1, 3, 0, 2).reshape(s * s, a * b)
    return outer, inner


def kronecker_rank(w: Tensor, s: int) -> int:
    """Least number of products of an (s, s) matrix and another, in either order, that add up to ``w``."""
    return min(int(torch.linalg.matrix_rank(m, rtol=1e-9)) for m in rearranged(w, s))


def left_over(w: Tensor, kernels: Tensor) -> float:
    """Part of ``w`` that is no sum of products with these (n, s, s) kernels, or with their transposes."""
    s = kernels.shape[-1]
    parts = []
    for k in (kernels, kernels.transpose(1, 2)):
        basis = torch.linalg.qr(k.reshape(len(k), -1).t()).Q
        parts += [float((m - basis @ (basis.t() @ m)).norm() / m.norm()) for m in rearranged(w, s)]
    return min(parts)


def ladder_gate(s: Tensor, x: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``μ s + (1 - μ) P x``, ``μ = 1 / (1 + exp(-α / 0.1))``."""
    mu = 1 / (1 + torch.exp(-alpha / 0.1))
    return mu * s + (1 - mu) * affine(x, weight, bias)


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_kronecker_sum_by_hand():
    kernels = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 0.0]]])
    templates = torch.tensor([[[1.0, 10.0, 100.0]], [[5.0, 6.0, 7.0]]])
    assert kronecker_sum(kernels, templates).tolist() == [
        [1.0, 10.0, 100.0, 7.0, 26.0, 207.0],
        [3.0, 30.0, 300.0, 4.0, 40.0, 400.0],
    ]


@pytest.mark.parametrize("s", [1, 2, 4, 8])
def test_kronecker_rank_tells_sums_of_s_products(s):
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(s, s, s, generator=generator).double()
    templates = torch.randn(s, 24, 3, generator=generator).double()
    assert kronecker_rank(kronecker_sum(kernels, templates), s) == s
    assert left_over(kronecker_sum(kernels, templates), kernels) <= 1e-12
    other_order = sum(torch.kron(t, k) for k, t in zip(kernels, templates, strict=True))
    assert kronecker_rank(other_order, s) == s
    if s > 1:
        chance = torch.randn(s * 24, s * 3, generator=generator).double()
        assert kronecker_rank(chance, s) == s * s and left_over(chance, kernels) > 0.1


def test_ladder_gate_by_hand():
    s, x = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 1.0, 1.0]).double()
    p, b = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]).double(), torch.tensor([0.0, 1.0]).double()
    # P x + b = (4, 4); α = 0: the mean; α = ln(3) / 10: three quarters of s
    assert ladder_gate(s, x, torch.tensor(0.0), p, b).tolist() == [2.5, 3.0]
    alpha = torch.tensor(math.log(3) / 10, dtype=torch.float64)
    assert ladder_gate(s, x, alpha, p, b).tolist() == pytest.approx([1.75, 2.5], rel=1e-12)


# ---- Polyhistor-Lite ------------------------------------------------------------------------------------------------


class Factors(TorchDispatchMode):
    """Records every matrix that rows are multiplied with, and both factors of products of a batch, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm):
            for factor in args[-2:]:
                if factor.ndim == 3:
                    self.seen += list(factor)
                elif factor is args[-1]:
                    self.seen.append(factor)
        return func(*args, **(kwargs or {}))


@built("PolyhistorLite")
def test_weights_of_polyhistor_lite_are_sums_of_s_kronecker_products():
    """In a stage of width multiple s each generated matrix is Σ_{i=1..s} K_i ⊗ T_i, with kernels that are trained."""
    fields = {f.name for f in dataclasses.fields(registry.find("adapters", "PolyhistorLite"))}
    assert "reduction" in fields, "say here how the bottleneck of PolyhistorLite is chosen"
    model = double_model("swin", method("PolyhistorLite", reduction=8))
    with torch.no_grad(), Factors() as factors:
        model(pixels("swin"))
    for s in (1, 2, 4, 8):
        d, m = 24 * s, 3 * s
        generated = [w for w in factors.seen if tuple(w.shape) in ((d, m), (m, d))]
        assert generated, f"no matrix of {d} by {m} was multiplied with"
        assert {kronecker_rank(w, s) for w in generated} == {s}
        if s > 1:
            trained = [t.detach() for t in encoder_leaves(model).values() if t.ndim > 1 and t.shape[-2:] == (s, s)]
            sets = [t.reshape(s, s, s) for t in trained if t.numel() == s**3]
            sets = sets or [torch.cat([t.reshape(-1, s, s) for t in trained])]
            assert all(len(kernels) < s * s for kernels in sets), "so many kernels make up any matrix"
            assert max(min(left_over(w, kernels) for kernels in sets) for w in generated) <= BOUND


# ---- ladder side-tuning ---------------------------------------------------------------------------------------------


def gates_of(model: Model) -> list[nn.Module]:
    """Modules outside the heads that own one single number: the gates."""
    heads = {module for task in model.tasks for module in model.head(task).modules()}
    found = [m for m in model.modules() if any(p.numel() == 1 for p in m.parameters(recurse=False))]
    return [m for m in found if m not in heads]


@built("SideTuning")
@pytest.mark.parametrize("short", ["vit", "swin"])
def test_ladder_gates(short):
    """Each gate mixes what stands beside the trunk with a projection of the trunk's own map."""
    model = double_model(short, method("SideTuning", reduction=4))
    gates = gates_of(model)
    assert len(gates) >= sum(len(stage.blocks) for stage in model.backbone.stages)
    calls: list[tuple[nn.Module, tuple[Any, ...], Tensor]] = []
    for gate in gates:
        gate.register_forward_hook(lambda module, args, out: calls.append((module, args, out)))
    model(pixels(short))
    assert {id(module) for module, _, _ in calls} == {id(module) for module in gates}
    for gate, args, out in calls:
        alpha = next(p for p in gate.parameters(recurse=False) if p.numel() == 1).reshape(())
        linears = [m for m in gate.modules() if isinstance(m, nn.Linear)]
        s, x = [a for a in args if isinstance(a, Tensor)][:2]
        if linears:
            want = ladder_gate(s, x, alpha, linears[0].weight, linears[0].bias)
        else:  # it is given P x
            want = ladder_gate(s, x, alpha, torch.eye(x.shape[-1], dtype=x.dtype), None)
        assert tiny.far(out, want) <= BOUND


@built("SideTuning")
def test_ladder_gates_start_in_the_middle():
    model = tiny.model("swin", method("SideTuning", reduction=4), own=False)
    gates = gates_of(model)
    assert gates
    for gate in gates:
        assert all(float(p.detach()) == 0.0 for p in gate.parameters(recurse=False) if p.numel() == 1)
