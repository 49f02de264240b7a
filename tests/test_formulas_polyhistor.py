"""Polyhistor-Lite written out: what the hyper-network generates, and the trunk with it, against the model in float64.

Liu, Ma, Tian, He, Kira, NeurIPS 2022 (arXiv 2210.03265), sections 3.2 and 3.3. Maps of every task and gradients of
every tensor outside the heads. The adapter is a hook on the bare trunk, computed from named tensors; it shares no code
with the package's. What the paper leaves open is said at each formula.
Shape letters: d width of a stage, m bottleneck, s width multiple, c and b those of the first stage, q rank.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import tiny
from garnish.adapters.polyhistor import PolyhistorLite
from garnish.engine.context import ForwardContext
from garnish.model.model import Model
from plain_trunks import affine, gelu, layer_norm
from whole_trunk import built, encoder_leaves, heads_input, method, plain_input, same

Named = dict[str, Tensor]
Weights = tuple[Tensor, Tensor, Tensor, Tensor]


# ---- the formulas ---------------------------------------------------------------------------------------------------


def kernels_first(kernel: Tensor, template: Tensor) -> Tensor:
    """``K ⊗ T``: blocks of the template's size, each a multiple of the template. The order that the package has."""
    return torch.cat([torch.cat([k * template for k in row], 1) for row in kernel], 0)


def templates_first(kernel: Tensor, template: Tensor) -> Tensor:
    """``T ⊗ K``, the other order that the paper allows."""
    return kernels_first(template, kernel)


def embedded(p: Named, task: Tensor, layer: Tensor) -> Tensor:
    """``LN(W_2 ReLU(W_1 (task, layer) + b_1) + b_2)``: the task first; ReLU, where the adapter has GELU."""
    x = torch.cat([task, layer])
    x = torch.relu(affine(x, p["inner.0.weight"], p["inner.0.bias"]))
    x = affine(x, p["inner.2.weight"], p["inner.2.bias"])
    return layer_norm(x, p["inner.3.weight"], p["inner.3.bias"], 1e-5)


def template(p: Named, which: str, e: Tensor, rank: int) -> Tensor:
    """``F G`` with the generated F (rows × q) and G (q × columns), both read row by row."""
    left = affine(e, p[f"{which}_left.weight"], p[f"{which}_left.bias"])
    right = affine(e, p[f"{which}_right.weight"], p[f"{which}_right.bias"])
    return torch.einsum("rq,qc->rc", left.reshape(-1, rank), right.reshape(rank, -1))


def generated(
    p: Named, task: Tensor, number: int, rank: int, product: Callable[[Tensor, Tensor], Tensor] = kernels_first
) -> Weights:
    """D (m, d), b_D (m), U (d, m), b_U (d) of one task at one layer, each ``Σ_i K_i ⊗ T_i`` over s embeddings."""
    made: dict[str, Tensor | float] = dict.fromkeys(("down", "down_bias", "up", "up_bias"), 0.0)
    for i, layer in enumerate(p[f"layers.{number}"]):
        e = embedded(p, task, layer)
        for which in ("down", "up"):
            bias = affine(e, p[f"{which}_bias.weight"], p[f"{which}_bias.bias"])
            column = product(p[f"{which}_bias_kernels.{number}"][i], bias[:, None])
            made[which] = made[which] + product(p[f"{which}_kernels.{number}"][i], template(p, which, e, rank))
            made[f"{which}_bias"] = made[f"{which}_bias"] + column[:, 0]
    return made["down"], made["down_bias"], made["up"], made["up_bias"]  # type: ignore[return-value]


def parallel(w: Weights, h: Tensor, scale: float) -> Tensor:
    """``c (U GELU(D h + b_D) + b_U)`` on the stream before the norm."""
    down, down_bias, up, up_bias = w
    return scale * affine(gelu(affine(h, down, down_bias)), up, up_bias)


def maps_by_hooks(short: str, pixels: Tensor, weights: list[Weights], scale: float) -> list[Tensor]:
    """Feature maps of the bare trunk with an adapter beside the branch of its every MLP, in forward order."""
    trunk = tiny.backbone(short).double().eval()
    branches = [m for site, m in trunk.sites_with_modules() if site.kind == "branch" and site.place == "mlp"]
    for branch, w in zip(branches, weights, strict=True):
        branch.register_forward_hook(lambda _, args, out, w=w: out + parallel(w, args[0], scale))
    return list(trunk(pixels))


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_orders_of_the_product_by_hand():
    kernel, column = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0], [10.0]])
    assert kernels_first(kernel, column).tolist() == [[1, 2], [10, 20], [3, 4], [30, 40]]
    assert templates_first(kernel, column).tolist() == [[1, 2], [3, 4], [10, 20], [30, 40]]
    assert torch.equal(kernels_first(kernel, column), torch.kron(kernel, column))


# ---- the model ------------------------------------------------------------------------------------------------------


def net_of(model: Model) -> Named:
    """What all tasks share, by its name within the hyper-network."""
    return {n.split(".", 2)[2]: t for n, t in encoder_leaves(model).items() if n.startswith("shared.")}


def embedding_of(model: Model, task: str) -> Tensor:
    """The one tensor that a task owns."""
    (found,) = (t for n, t in encoder_leaves(model).items() if re.fullmatch(rf"adapters\.[^.]+:{task}\..+\.task", n))
    return found


@built("PolyhistorLite")
@pytest.mark.parametrize(
    "options",
    [{}, {"reduction": 8, "rank": 3, "embedding": 5, "hidden": 16, "scale": 0.3}],
    ids=["defaults", "options"],
)
@pytest.mark.parametrize("short", ["swin", "dinov2"])
def test_polyhistor_lite(short, options):
    added = method("PolyhistorLite", **options)
    rank, scale = options.get("rank", 4), options.get("scale", 1.0)
    model = tiny.model(short, added).double()
    pictures = tiny.pictures(2, 64, 96) if short == "swin" else tiny.pictures(2, 56, 56)
    pictures = pictures.double().requires_grad_()
    net = net_of(model)
    layers = sum(name.startswith("layers.") for name in net)
    wanted = {}
    for task in model.tasks:
        weights = [generated(net, embedding_of(model, task), number, rank) for number in range(layers)]
        wanted[task] = maps_by_hooks(short, plain_input(model, pictures), weights, scale)
    leaves = encoder_leaves(model)
    assert len(leaves) == len(net) + len(model.tasks)
    same(heads_input(model, pictures), wanted, {**leaves, "pictures": pictures})
    # no two tasks alike, and the order of the product matters
    assert all(tiny.far(wanted["seg"][-1], wanted[task][-1]) > 1e-4 for task in ("depth", "normals"))
    if short == "swin":
        other = [generated(net, embedding_of(model, "seg"), n, rank, templates_first) for n in range(layers)]
        assert tiny.far(maps_by_hooks(short, plain_input(model, pictures), other, scale)[-1], wanted["seg"][-1]) > 1e-4


def test_a_row_of_a_compiled_pass_runs_what_the_adapter_itself_does():
    """In compiled passes the written weights run in a plain adapter; with options other than the defaults, too."""
    model = tiny.model("vit", PolyhistorLite(scale=0.3, embedding=8, hidden=8), tasks=("seg", "depth"))
    for part in model.owners[0].parts:
        for _, adapter in part.placed():
            width = adapter.for_row()[1]["down.weight"].shape[1]
            x, y = torch.randn(2, 5, width), torch.randn(2, 5, width)
            ctx = ForwardContext(grid=(1, 5))
            form, written = adapter.for_row()
            row = torch.func.functional_call(form, written, ("after", x, y, ctx))
            torch.testing.assert_close(row, adapter.after(x, y, ctx), rtol=1e-5, atol=1e-6)
            assert tiny.far(row, y) > 1e-3
