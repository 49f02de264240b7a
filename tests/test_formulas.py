"""Each method at one site against a short transcription of its formula in float64, forward and backward.

The transcriptions share no code with the package: tensors in, tensors out. Shape letters: R rows, N tokens, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import garnish
import tiny
from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.engine.adapter import Adapter, Method
from garnish.engine.blocks import bare
from garnish.engine.context import ForwardContext
from garnish.engine.owner import owners_of

BOUND = 1e-10
WIDTH, HIDDEN, RANK = 48, 192, 4


def at_site(method: Method, site: str, *, train: bool = False) -> tuple[Backbone, nn.Module, Adapter]:
    """An adapted tiny DINOv2 in float64, the wrapper at ``site`` and its adapter, every tensor random."""
    model = tiny.model("dinov2", method, tasks=("seg",)).double()
    wrapper = {s.name: m for s, m in model.backbone.sites_with_modules()}[site]
    adapter = {at.site.name: a for at, a in model.owners[0].placed()}[site]
    adapter.train(train)
    return model.backbone, wrapper, adapter


def stream(width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 17, width, generator=generator, dtype=torch.float64).requires_grad_()


def run(trunk: Backbone, wrapper: nn.Module, x: Tensor) -> Tensor:
    with trunk.binding.bound(ForwardContext(grid=(4, 4), num_prefix=1, owner=owners_of(trunk)[0])):
        return wrapper(x)


def compare(got: Tensor, want: Tensor, leaves: dict[str, Tensor]) -> None:
    """Equal outputs, and equal gradients of every leaf for one upstream gradient."""
    assert tiny.far(got, want) <= BOUND
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(6), dtype=got.dtype)
    ours = torch.autograd.grad(got, list(leaves.values()), upstream, retain_graph=True)
    theirs = torch.autograd.grad(want, list(leaves.values()), upstream)
    for name, a, b in zip(leaves, ours, theirs, strict=True):
        assert b.abs().max() > 0 and tiny.far(a, b) <= BOUND, name


def frozen_linear(wrapper: nn.Module) -> tuple[Tensor, Tensor]:
    layer = bare(wrapper)
    return layer.weight, layer.bias


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        (garnish.LoRA(rank=RANK, alpha=6.0), 6.0 / RANK),
        (garnish.LoRA(rank=RANK, alpha=6.0, rs=True), 6.0 / math.sqrt(RANK)),
        (garnish.LoRA(rank=RANK), 16.0 / RANK),
    ],
    ids=["lora", "rslora", "default_alpha"],
)
@pytest.mark.parametrize(("site", "width"), [("attn.qkv", WIDTH), ("mlp.fc2", HIDDEN)])
def test_lora(method, scale, site, width):
    trunk, wrapper, adapter = at_site(method, f"stages.1.blocks.0.{site}")
    a, b = adapter.lora_a, adapter.lora_b
    weight, bias = frozen_linear(wrapper)
    x = stream(width)
    assert a.shape == (RANK, width)
    want = torch.einsum("oi,rni->rno", weight, x) + bias + scale * torch.einsum("or,ri,bni->bno", b, a, x)
    compare(run(trunk, wrapper, x), want, {"x": x, "A": a, "B": b})


def test_dora():
    trunk, wrapper, adapter = at_site(garnish.LoRA(rank=RANK, alpha=6.0, dora=True), "stages.1.blocks.0.mlp.fc1")
    a, b, m = adapter.lora_a, adapter.lora_b, adapter.magnitude
    weight, bias = frozen_linear(wrapper)
    x = stream()
    assert m.shape == (HIDDEN,)
    direction = weight + 6.0 / RANK * b @ a
    norm = (direction**2).sum(1).sqrt().detach()  # a constant in the backward pass
    want = x @ (m / norm * direction.t()) + bias
    compare(run(trunk, wrapper, x), want, {"x": x, "A": a, "B": b, "m": m})


def test_dora_differs_where_the_norm_is_not_a_constant():
    # the test above would not see a missing detach if its gradient were the same anyway
    trunk, wrapper, adapter = at_site(garnish.LoRA(rank=RANK, alpha=6.0, dora=True), "stages.1.blocks.0.mlp.fc1")
    a, b, m = adapter.lora_a, adapter.lora_b, adapter.magnitude
    weight, bias = frozen_linear(wrapper)
    x = stream()
    direction = weight + 6.0 / RANK * b @ a
    want = x @ (m / (direction**2).sum(1).sqrt() * direction.t()) + bias
    with pytest.raises(AssertionError, match="A"):
        compare(run(trunk, wrapper, x), want, {"x": x, "A": a})


def test_dora_magnitude_starts_as_the_row_norm_of_the_weight():
    model = tiny.model("dinov2", garnish.LoRA(rank=RANK, dora=True), tasks=("seg",), own=False)
    modules = {s.name: m for s, m in model.backbone.sites_with_modules()}
    for at, adapter in model.owners[0].placed():
        torch.testing.assert_close(adapter.magnitude, (bare(modules[at.site.name]).weight ** 2).sum(1).sqrt())


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def bottleneck(adapter: Adapter, z: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """``U σ(D z + b_D) + b_U``."""
    hidden = act(torch.einsum("md,rnd->rnm", adapter.down.weight, z) + adapter.down.bias)
    return torch.einsum("dm,rnm->rnd", adapter.up.weight, hidden) + adapter.up.bias


def leaves_of(adapter: Adapter, x: Tensor) -> dict[str, Tensor]:
    return {"x": x, **dict(adapter.named_parameters())}


@pytest.mark.parametrize("place", ["attn", "mlp"])
@pytest.mark.parametrize(("activation", "act"), [("gelu", gelu), ("silu", silu)])
def test_houlsby_is_inside_the_residual_at_both_sublayers(place, activation, act):
    method = garnish.Houlsby(reduction=4, activation=activation)
    trunk, _, adapter = at_site(method, f"stages.2.blocks.0.{place}.sublayer")
    assert adapter.down.weight.shape == (WIDTH // 4, WIDTH)
    residual = trunk.stages[2].blocks[0][place]
    x = stream()
    branch = bare(bare(residual).branch)
    # x + LayerScale(A(sublayer(norm(x))))
    z = bare(branch.layer)(branch.norm(x))
    want = x + branch.scale(z + bottleneck(adapter, z, act))
    compare(run(trunk, residual, x), want, leaves_of(adapter, x))


def test_pfeiffer_is_behind_the_mlp_alone():
    trunk, _, adapter = at_site(garnish.Pfeiffer(reduction=8), "stages.2.blocks.0.mlp.sublayer")
    assert adapter.down.weight.shape == (WIDTH // 8, WIDTH)
    residual = trunk.stages[2].blocks[0]["mlp"]
    x = stream()
    branch = bare(bare(residual).branch)
    z = bare(branch.layer)(branch.norm(x))
    compare(run(trunk, residual, x), x + branch.scale(z + bottleneck(adapter, z, gelu)), leaves_of(adapter, x))
    assert {at.site.name.split(".")[-2] for at, _ in owners_of(trunk)[0].placed()} == {"mlp"}


@pytest.mark.parametrize("scale", [0.1, 0.7, "learnable"])
def test_adaptformer_reads_the_stream_before_the_norm(scale):
    method = garnish.AdaptFormer(bottleneck=6, scale=scale)
    trunk, _, adapter = at_site(method, "stages.2.blocks.0.mlp.branch")
    residual = trunk.stages[2].blocks[0]["mlp"]
    x = stream()
    branch = bare(bare(residual).branch)
    factor = adapter.scale if scale == "learnable" else scale
    want = x + branch.scale(branch.layer(branch.norm(x))) + factor * bottleneck(adapter, x, relu)
    compare(run(trunk, residual, x), want, leaves_of(adapter, x))


def test_adaptformer_is_outside_drop_path():
    # with the whole branch dropped, the adapter's term is what is left
    trunk, _, adapter = at_site(garnish.AdaptFormer(bottleneck=6, dropout=0.0), "stages.2.blocks.0.mlp.branch")
    residual = trunk.stages[2].blocks[0]["mlp"]

    class Drops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    bare(bare(residual).branch).drop_path = Drops()
    x = stream()
    compare(run(trunk, residual, x), x + 0.1 * bottleneck(adapter, x, relu), leaves_of(adapter, x))


@pytest.mark.parametrize("name", ["Houlsby", "Pfeiffer"])
def test_serial_adapters_are_inside_drop_path(name):
    site = "stages.2.blocks.0.mlp.sublayer"
    trunk, _, _ = at_site(registry.build("adapters", name, {"reduction": 4}), site)
    residual = trunk.stages[2].blocks[0]["mlp"]

    class Drops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    bare(bare(residual).branch).drop_path = Drops()
    x = stream()
    assert torch.equal(run(trunk, residual, x), x)


def test_starts():
    """Initial values: A and AdaptFormer's D Kaiming-uniform (a = √5), up sides zero, Houlsby N(0, 0.01²)."""
    torch.manual_seed(0)
    trunk = tiny.backbone("dinov2")
    lora = garnish.LoRA(rank=8).plan(trunk).adapters["stages.0.blocks.0.mlp.fc2"]
    # U(-b, b), b = √(6 / ((1 + 5) fan_in)) = 1/√fan_in
    assert 0.95 / math.sqrt(HIDDEN) < lora.lora_a.abs().max() <= 1 / math.sqrt(HIDDEN)
    assert not lora.lora_b.any()
    former = garnish.AdaptFormer().plan(trunk).adapters["stages.0.blocks.0.mlp.branch"]
    assert 0.95 / math.sqrt(WIDTH) < former.down.weight.abs().max() <= 1 / math.sqrt(WIDTH)
    assert not any(t.any() for t in (former.down.bias, former.up.weight, former.up.bias))
    houlsby = list(garnish.Houlsby(reduction=2).plan(trunk).adapters.values())
    for side in ("down", "up"):
        weights = torch.cat([getattr(a, side).weight.flatten() for a in houlsby])
        assert weights.std().item() == pytest.approx(0.01, rel=0.05)
    pfeiffer = list(garnish.Pfeiffer(reduction=2).plan(trunk).adapters.values())
    assert torch.cat([a.down.weight.flatten() for a in pfeiffer]).std().item() == pytest.approx(0.01, rel=0.05)
    assert not any(t.any() for a in [*houlsby, *pfeiffer] for t in (a.down.bias, a.up.bias))
    assert not any(a.up.weight.any() for a in pfeiffer)


#: Swin-T: blocks and width of each stage; S1 = Σ blocks · width, S2 = Σ blocks · width²
SWIN_T = ((2, 96), (2, 192), (6, 384), (2, 768))
S1 = sum(n * d for n, d in SWIN_T)
S2 = sum(n * d**2 for n, d in SWIN_T)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        (garnish.LoRA(rank=4, layers=("qkv",)), 4 * 4 * S1),
        (garnish.LoRA(rank=16, layers=("qkv",)), 4 * 16 * S1),
        (garnish.LoRA(rank=16), 16 * 16 * S1),
        (garnish.LoRA(rank=4, layers=("qkv", "proj", "fc1", "fc2")), 16 * 4 * S1),
        # one magnitude an output: 3 + 1 + 4 + 1 widths a block
        (garnish.LoRA(rank=16, dora=True), 16 * 16 * S1 + 9 * S1),
        (garnish.Houlsby(reduction=16), 2 * (2 * S2 // 16 + S1 + S1 // 16)),
        (garnish.Pfeiffer(reduction=8), 2 * S2 // 8 + S1 + S1 // 8),
        (garnish.AdaptFormer(bottleneck=64), (2 * 64 + 1) * S1 + 12 * 64),
        (garnish.AdaptFormer(bottleneck=64, scale="learnable"), (2 * 64 + 1) * S1 + 12 * 64 + 12),
        (garnish.Frozen(), 0),
    ],
    ids=str,
)
def test_parameter_counts_on_swin_t(swin_t, method, count):
    plan = method.plan(swin_t)
    assert sum(p.numel() for a in plan.adapters.values() for p in a.parameters()) == count
    assert plan.tuned == ()


@pytest.fixture(scope="module")
def swin_t() -> Backbone:
    return garnish.backbone("swin_tiny_patch4_window7_224")


def test_published_counts(swin_t):
    """The examples of the literature in millions: 0.55, 0.54, 0.57, 1.13 and 0.07."""
    for name, options, millions in (
        ("Houlsby", {"reduction": 16}, 0.55),
        ("Pfeiffer", {"reduction": 8}, 0.54),
        ("AdaptFormer", {"bottleneck": 64}, 0.57),
        ("LoRA", {"rank": 16}, 1.13),
        ("LoRA", {"rank": 4, "layers": ["qkv"]}, 0.07),
    ):
        plan = registry.build("adapters", name, options).plan(swin_t)
        assert round(sum(p.numel() for a in plan.adapters.values() for p in a.parameters()) / 1e6, 2) == millions
    full = garnish.FullFineTuning().plan(swin_t)
    sizes = {n: t.numel() for n, t in swin_t.frozen_tensors().items()}
    # Swin-T without classifier and last norm
    assert sum(sizes[n] for n in full.tuned) == 27_519_354 - 2 * 768
