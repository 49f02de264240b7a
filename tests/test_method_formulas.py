"""SSF, Convpass and Mona against short transcriptions of their formulas in float64, forward and backward.

The transcriptions take named tensors and share no code with the package. Shape letters: R rows, N tokens, H W map,
d width, m bottleneck.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

import tiny
from garnish.engine.adapter import Adapter
from garnish.engine.context import ForwardContext
from plain_trunks import affine, gelu, layer_norm
from whole_trunk import built, double_model, method, parts, same, whole_trunk_equals

Named = dict[str, Tensor]


# ---- the formulas ---------------------------------------------------------------------------------------------------


def ssf(p: Named, z: Tensor) -> Tensor:
    """``γ ⊙ z + β`` over the last axis."""
    return p["scale"] * z + p["shift"]


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def convpass(p: Named, x: Tensor) -> Tensor:
    """``up(Q(conv3×3(Q(down(x)))))`` on a map (R, H, W, d) with zeros around it."""
    v = quick_gelu(affine(x, p["down.weight"], p.get("down.bias")))
    v = conv2d(v.permute(0, 3, 1, 2), p["conv.weight"], p.get("conv.bias"), padding=1).permute(0, 2, 3, 1)
    return affine(quick_gelu(v), p["up.weight"], p.get("up.bias"))


def mona(p: Named, x: Tensor) -> Tensor:
    """``x + U GELU(c(D u))``, ``u = γ LN(x) + γ_x x``, on a map (R, H, W, d)."""
    u = p["gamma"] * layer_norm(x, p["norm.weight"], p["norm.bias"], 1e-5) + p["gamma_x"] * x
    v = affine(u, p["down.weight"], p["down.bias"]).permute(0, 3, 1, 2)
    groups = v.shape[1]
    three, five, seven = (
        conv2d(v, p[f"conv{k}.weight"], p[f"conv{k}.bias"], padding=k // 2, groups=groups) for k in (3, 5, 7)
    )
    v = v + (three + five + seven) / 3
    one = p["conv1.weight"]
    v = v + conv2d(v, one.reshape(*one.shape[:2], 1, 1), p["conv1.bias"])
    return x + affine(gelu(v).permute(0, 2, 3, 1), p["up.weight"], p["up.bias"])


# ---- by hand --------------------------------------------------------------------------------------------------------


def tensors(**values: object) -> Named:
    return {
        name.replace("_w", ".weight").replace("_b", ".bias"): torch.tensor(v).double() for name, v in values.items()
    }


def test_ssf_by_hand():
    y = ssf(tensors(scale=[2.0, 3.0], shift=[1.0, -1.0]), torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
    assert y.tolist() == [[3.0, 5.0], [1.0, -4.0]]


def test_convpass_by_hand():
    # two pixels in a row; the kernel takes a pixel and twice its right neighbour
    p = tensors(down_w=[[1.0]], conv_w=[[[[0.0, 0, 0], [0, 1, 2], [0, 0, 0]]]], up_w=[[3.0]], up_b=[0.5])

    def q(v: float) -> float:
        return v / (1 + math.exp(-1.702 * v))

    y = convpass(p, torch.tensor([[[[1.0], [2.0]]]]).double()).flatten().tolist()
    assert y == pytest.approx([3 * q(q(1) + 2 * q(2)) + 0.5, 3 * q(q(2)) + 0.5], rel=1e-12)


def test_mona_by_hand():
    # one pixel: D sums u = (3 + e, 1 - e) to 4; 4 + (12 + 0 + 3) / 3 = 9; 9 + 10 = 19 = GELU(19)
    def centre(k: int, value: float) -> list[list[list[list[float]]]]:
        return [[[[value if i == j == k // 2 else 7.0 for j in range(k)] for i in range(k)]]]

    p = tensors(norm_w=[1.0, 1], norm_b=[0.0, 0], gamma=[1.0, 1], gamma_x=[1.0, 1], down_w=[[1.0, 1]], down_b=[0.0])
    p |= tensors(conv3_w=centre(3, 3.0), conv3_b=[0.0], conv5_w=centre(5, 0.0), conv5_b=[0.0])
    p |= tensors(conv7_w=centre(7, 0.0), conv7_b=[3.0], conv1_w=[[[[1.0]]]], conv1_b=[1.0])
    p |= tensors(up_w=[[1.0], [-1.0]], up_b=[0.0, 0.0])
    y = mona(p, torch.tensor([[[[3.0, 1.0]]]]).double())
    torch.testing.assert_close(y, torch.tensor([[[[22.0, -18.0]]]]).double(), rtol=1e-12, atol=0)


# ---- one adapter at a time ------------------------------------------------------------------------------------------


def at_site(name: str, short: str, site: str, **options: object) -> Adapter:
    """The adapter that a method puts there, its tensors random, in float64 and evaluation mode."""
    torch.manual_seed(0)
    adapter = method(name, **options).plan(tiny.backbone(short)).adapters[site].double().eval()
    with torch.no_grad():
        for parameter in adapter.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.add_(torch.randn_like(parameter) / fan_in**0.5)
    return adapter


def noise(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def check(adapter: Adapter, got: Tensor, want: Tensor, x: Tensor, y: Tensor, *, dead: tuple[str, ...] = ()) -> None:
    leaves = {**dict(adapter.named_parameters()), "x": x, "y": y}
    same({"": [got]}, {"": [want]}, leaves, dead=lambda name: name in dead)


@built("SSF")
@pytest.mark.parametrize(
    ("short", "site", "ins", "outs", "channels"),
    [
        ("swin", "stem.patch_embed.proj", (2, 3, 8, 12), (2, 24, 2, 3), 1),
        ("swin", "stem.patch_embed.norm", (2, 4, 6, 24), (2, 4, 6, 24), -1),
        ("swin", "stages.1.blocks.0.attn.qkv", (6, 49, 48), (6, 49, 144), -1),
        ("swin", "stages.1.blocks.1.mlp.norm", (2, 4, 6, 48), (2, 4, 6, 48), -1),
        ("swin", "stages.2.enter.norm", (2, 4, 6, 192), (2, 4, 6, 192), -1),
        ("vit", "stages.1.blocks.0.mlp.fc1", (2, 17, 48), (2, 17, 192), -1),
    ],
)
def test_ssf(short, site, ins, outs, channels):
    adapter = at_site("SSF", short, site)
    p = dict(adapter.named_parameters())
    assert p["scale"].shape == p["shift"].shape == (outs[channels],)
    x, y = noise(1, *ins), noise(2, *outs)
    got = adapter.after(x, y, ForwardContext(grid=(4, 6)))
    check(adapter, got, ssf(p, y.movedim(channels, -1)).movedim(-1, channels), x, y, dead=("x",))


@built("SSF")
@pytest.mark.parametrize("site", ["stages.1.blocks.0.mlp.fc1", "stages.1.blocks.0.attn.norm", "stem.patch_embed.proj"])
def test_ssf_merges_into_the_layer(site):
    """``W ← diag(γ) W``, ``b ← γ b + β``; for a norm its own factors likewise."""
    adapter = at_site("SSF", "swin", site)
    frozen = {n: t.double() for n, t in tiny.backbone("swin").frozen_tensors().items()}
    weight, bias = frozen[f"{site}.weight"], frozen[f"{site}.bias"]
    merged = adapter.merged(weight, bias)
    assert merged is not None
    rows = [adapter.scale[i] * weight[i] for i in range(len(weight))]
    torch.testing.assert_close(merged[0], torch.stack(rows), rtol=1e-12, atol=0)
    torch.testing.assert_close(merged[1], adapter.scale * bias + adapter.shift, rtol=1e-12, atol=1e-14)


@built("Convpass")
@pytest.mark.parametrize("place", ["attn", "mlp"])
def test_convpass_on_a_map(place):
    adapter = at_site("Convpass", "swin", f"stages.1.blocks.1.{place}.beside", bottleneck=5, scale=0.7)
    p = dict(adapter.named_parameters())
    assert p["conv.weight"].shape == (5, 5, 3, 3)
    x, y = noise(1, 2, 4, 6, 48), noise(2, 2, 4, 6, 48)
    got = adapter.after(x, y, ForwardContext(grid=(4, 6)))
    check(adapter, got, y + 0.7 * convpass(p, x), x, y)


@built("Convpass")
@pytest.mark.parametrize("num_prefix", [0, 1, 3])
def test_convpass_on_tokens(num_prefix):
    """Each class or register token is a picture of its own, of one pixel (Jie and Deng, 2022, section 3)."""
    adapter = at_site("Convpass", "vit", "stages.1.blocks.0.mlp.beside", bottleneck=5, scale=0.7)
    p = dict(adapter.named_parameters())
    x, y = noise(1, 2, num_prefix + 24, 48), noise(2, 2, num_prefix + 24, 48)
    got = adapter.after(x, y, ForwardContext(grid=(4, 6), num_prefix=num_prefix))
    pieces = [convpass(p, x[:, None, i : i + 1]).flatten(1, 2) for i in range(num_prefix)]
    pieces.append(convpass(p, x[:, num_prefix:].reshape(2, 4, 6, 48)).flatten(1, 2))
    check(adapter, got, y + 0.7 * torch.cat(pieces, 1), x, y)


@built("Mona")
def test_mona_on_a_map():
    adapter = at_site("Mona", "swin", "stages.1.blocks.1.attn", bottleneck=6)
    p = dict(adapter.named_parameters())
    x, y = noise(1, 2, 5, 6, 48), noise(2, 2, 5, 6, 48)
    check(adapter, adapter.after(x, y, ForwardContext(grid=(5, 6))), mona(p, y), x, y, dead=("x",))


@built("Mona")
def test_mona_on_tokens():
    adapter = at_site("Mona", "vit", "stages.1.blocks.0.mlp", bottleneck=6)
    p = dict(adapter.named_parameters())
    x, y = noise(1, 2, 24, 48), noise(2, 2, 24, 48)
    want = mona(p, y.reshape(2, 4, 6, 48)).flatten(1, 2)
    check(adapter, adapter.after(x, y, ForwardContext(grid=(4, 6))), want, x, y, dead=("x",))


@built("Mona")
def test_mona_keeps_class_tokens_and_map_apart():
    # the paper has no class token; whatever is done to one, the map must not see it, nor it the map
    adapter = at_site("Mona", "vit", "stages.1.blocks.0.mlp", bottleneck=6)
    p, ctx = dict(adapter.named_parameters()), ForwardContext(grid=(4, 6), num_prefix=2)
    y = noise(2, 2, 26, 48)
    got = adapter.after(y, y, ctx)
    assert got.shape == y.shape
    assert tiny.far(got[:, 2:], mona(p, y[:, 2:].reshape(2, 4, 6, 48)).flatten(1, 2)) <= 1e-10
    other = torch.cat([y[:, :2], noise(3, 2, 24, 48)], 1)
    assert tiny.far(adapter.after(other, other, ctx)[:, :2], got[:, :2]) <= 1e-12


# ---- all of them at once --------------------------------------------------------------------------------------------


@built("SSF")
@pytest.mark.parametrize("short", ["swin", "vit"])
def test_ssf_on_the_whole_trunk(short):
    """After the patch embedding and its norm, both norms, qkv, proj, fc1, fc2 of each block, and the merging norm."""
    model = double_model(short, method("SSF"))
    own = parts(model)
    layers = {site.name for site in model.backbone.sites() if site.kind in ("layer", "norm")}
    assert own.keys() == {name for name in layers if not name.endswith("reduction")}

    def edit(site, x, y):
        if site not in own:
            return y
        return ssf(own[site], y.movedim(1, -1)).movedim(-1, 1) if site == "stem.patch_embed.proj" else ssf(own[site], y)

    whole_trunk_equals(short, model, edit)


@built("Convpass")
def test_convpass_on_the_whole_trunk():
    """``x + Attn(LN x) + s P(LN x)`` on the map, not in windows; the MLP likewise."""
    model = double_model("swin", method("Convpass", bottleneck=4, scale=0.7))
    own = parts(model)
    assert own.keys() == {site.name for site in model.backbone.sites() if site.kind == "beside"}
    whole_trunk_equals("swin", model, lambda site, x, y: y + 0.7 * convpass(own[site], x) if site in own else y)


@built("Mona")
def test_mona_on_the_whole_trunk():
    """Behind both residual adds of every block."""
    model = double_model("swin", method("Mona", bottleneck=4))
    own = parts(model)
    assert own.keys() == {site.name for site in model.backbone.sites() if site.kind == "residual"}
    whole_trunk_equals("swin", model, lambda site, x, y: mona(own[site], y) if site in own else y)


#: tiny Swin: two blocks of each width
WIDTHS = (24, 48, 96, 192)
S1, BLOCKS = 2 * sum(WIDTHS), 8


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # embedding and merging norms besides; the trunk's last norm belongs to the heads here
        pytest.param("SSF", 22 * S1 + 4 * 24 + 2 * 4 * sum(WIDTHS[:3]), marks=built("SSF")),
        pytest.param("Mona", 2 * (133 * S1 + BLOCKS * 9_728), marks=built("Mona")),
    ],
)
def test_parameter_counts(name, count):
    plan = method(name).plan(tiny.backbone("swin"))
    assert sum(p.numel() for a in plan.adapters.values() for p in a.parameters()) == count
    assert plan.tuned == ()


@built("SSF")
def test_ssf_starts_near_the_identity():
    torch.manual_seed(0)
    adapters = method("SSF").plan(tiny.backbone("swin")).adapters.values()
    for leaf, mean in (("scale", 1.0), ("shift", 0.0)):
        values = torch.cat([getattr(a, leaf).detach() for a in adapters])
        assert values.mean().item() == pytest.approx(mean, abs=0.001)
        assert values.std().item() == pytest.approx(0.02, rel=0.05)


@built("Convpass")
@pytest.mark.parametrize("init", ["identity", "xavier"])
def test_convpass_starts(init):
    torch.manual_seed(0)
    adapters = method("Convpass", init=init).plan(tiny.backbone("swin")).adapters.values()
    delta = torch.zeros(8, 8, 3, 3)
    delta[range(8), range(8), 1, 1] = 1.0
    bound = math.sqrt(6 / (2 * 8 * 9))
    for a in adapters:
        assert not a.up.weight.any() and (a.up.bias is None or not a.up.bias.any())
        width = a.down.weight.shape[1]
        assert 0.8 * math.sqrt(6 / (width + 8)) < a.down.weight.abs().max() <= math.sqrt(6 / (width + 8))
        if init == "identity":
            assert torch.equal(a.conv.weight, delta)
        else:
            assert 0.9 * bound < a.conv.weight.abs().max() <= bound


@built("Mona")
def test_mona_starts():
    torch.manual_seed(0)
    adapters = list(method("Mona").plan(tiny.backbone("swin")).adapters.values())
    for a in adapters:
        torch.testing.assert_close(a.gamma, torch.full_like(a.gamma, 1e-6))
        assert torch.equal(a.gamma_x, torch.ones_like(a.gamma_x))
        assert a.up.weight.any() and not a.up.bias.any()
    ups = torch.cat([a.up.weight.detach().flatten() for a in adapters])
    assert ups.std().item() == pytest.approx(0.02, rel=0.05)
