"""DeMT's decoder.

Truths: its formula in float64, written out without any rearrangement; torch's own multi-head attention; printed counts.
"""

from __future__ import annotations

import pytest
import torch
import torchvision.ops
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import garnish as gn
from garnish import registry
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.demt import DeMT
from garnish.heads.head import pyramid_info, resample_pyramid
from garnish.heads.layers.task_attention import TaskAttention
from garnish.model.report import bytes_for_backward

WIDTHS = (8, 16, 24, 32)
FEATURES = [FeatureInfo(c, s) for c, s in zip(WIDTHS, (4, 8, 16, 32), strict=True)]
#: maps of a 53×75 picture, as ceil(side / stride)
ODD_SIZES = [(14, 19), (7, 10), (4, 5), (2, 3)]
OUTPUTS = {"seg": 5, "depth": 1, "keys": 3}  # the last is also a method of nn.ModuleDict
SPECS = [
    DeMT(channels=12, heads=3),
    DeMT(channels=12, heads=2, depth=2),
    DeMT(channels=12, heads=3, attention="token", reduction=4),
    DeMT(channels=12, heads=3, attention="token", reduction=1),
]
every = pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.attention}-{s.depth}-{s.reduction}")


def maps(count: int = 2, *, seed: int = 0, dtype: torch.dtype = torch.float64, sizes=ODD_SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    return [torch.randn(count, c, *s, **draw).to(dtype) for c, s in zip(WIDTHS, sizes, strict=True)]


def shared(count: int = 2, **options) -> dict[str, list[torch.Tensor]]:
    same = maps(count, **options)
    return dict.fromkeys(OUTPUTS, same)


def apart(count: int = 2, **options) -> dict[str, list[torch.Tensor]]:
    return {task: maps(count, seed=i, **options) for i, task in enumerate(OUTPUTS)}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def built(spec: DeMT, outputs=OUTPUTS, *, features=FEATURES) -> nn.Module:
    """A decoder in float64 with every tensor random; offsets of a few pixels, some beyond the map."""
    module = spec.build_joint(features, outputs).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point():
                continue
            scale = (0.1 if ".spread." in name else 1) / (tensor[0].numel() if tensor.ndim > 1 else 4) ** 0.5
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return module


class Formula:
    """methods.md 3.3, one step after the other, from the decoder's state dict."""

    def __init__(self, spec: DeMT, state: dict[str, torch.Tensor], *, training: bool) -> None:
        self.spec, self.state, self.training = spec, state, training

    def linear(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state.get(f"{name}.bias", 0)

    def conv(self, x, name, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def layer_norm(self, x, name):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def batch_norm(self, x, name):
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        scale = self.state[f"{name}.weight"] / (var + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self.state[f"{name}.bias"][:, None, None]

    def attend(self, queries, keys, name):
        """(B, Q, C) over (B, K, C), each head by itself."""
        q, k, v = (self.linear(x, f"{name}.{n}") for x, n in ((queries, "query"), (keys, "key"), (keys, "value")))
        width = self.spec.channels // self.spec.heads
        heads = []
        for h in range(self.spec.heads):
            part = slice(h * width, (h + 1) * width)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / width**0.5
            heads.append(torch.softmax(scores, -1) @ v[..., part])
        x = self.linear(torch.cat(heads, -1), f"{name}.out")
        return self.layer_norm(self.linear(x, f"{name}.mix"), f"{name}.norm")

    def mixer(self, x, name):
        z = self.batch_norm(F.gelu(self.conv(x, f"{name}.point")), f"{name}.point_norm")
        p = self.conv(z, f"{name}.offsets.taps", padding=1)
        for tap in range(9):
            for row in range(z.shape[2]):
                p[:, tap, row] += row + 1 + tap // 3 - 1
            for column in range(z.shape[3]):
                p[:, 9 + tap, :, column] += column + 1 + tap % 3 - 1
        offset = self.conv(p, f"{name}.offsets.spread", padding=1, groups=2)
        weight, bias = self.state[f"{name}.deform.weight"], self.state[f"{name}.deform.bias"]
        y = torchvision.ops.deform_conv2d(z, offset, weight, bias)
        plain = F.conv2d(z, weight, bias)
        assert (y - plain).abs().max() > 0.1  # the offsets do something
        return z + self.batch_norm(F.gelu(y), f"{name}.deform_norm")

    def __call__(self, features):
        mixed = {}
        for task, given in features.items():
            size = given[0].shape[-2:]
            grown = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in given]
            x = self.layer_norm(self.linear(torch.cat(grown, 1).permute(0, 2, 3, 1), "join.linear"), "join.norm")
            x = x.permute(0, 3, 1, 2)
            for i in range(self.spec.depth):
                x = self.mixer(x, f"parts.task_{task}.mixer.{i}")
            mixed[task] = x
        b, c, h, w = x.shape
        if self.spec.attention == "pixel":
            # every pixel of every picture is a sequence of its own
            tokens = torch.stack([z.permute(0, 2, 3, 1).reshape(b * h * w, c) for z in mixed.values()], 1)
        else:
            r = self.spec.reduction
            means = [
                z[:, :, i : i + r, j : j + r].mean((2, 3))
                for z in mixed.values()
                for i in range(0, h, r)
                for j in range(0, w, r)
            ]
            tokens = torch.stack(means, 1)
        met = self.attend(tokens, tokens, "interaction")
        out = {}
        for task, z in mixed.items():
            own = z.permute(0, 2, 3, 1).reshape(-1, 1 if self.spec.attention == "pixel" else h * w, c)
            seen = self.attend(own, met, f"parts.task_{task}.query").view(b, h, w, c).permute(0, 3, 1, 2)
            x = self.conv(z + seen, f"parts.task_{task}.bottleneck", padding=1)
            x = F.relu(self.batch_norm(x, f"parts.task_{task}.norm"))
            out[task] = self.conv(x, f"parts.task_{task}.classifier")
        return out


@every
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("given", [shared, apart], ids=["shared", "apart"])
def test_it_is_its_formula(spec, training, given):
    module = built(spec).train(training)
    expected = Formula(spec, {k: v.clone() for k, v in module.state_dict().items()}, training=training)(given())
    got = module(given())
    assert list(got) == list(OUTPUTS)
    for task, channels in OUTPUTS.items():
        assert got[task].shape == (2, channels, 14, 19) and expected[task].std() > 0.02
        torch.testing.assert_close(got[task], expected[task], atol=1e-9, rtol=1e-9)


def test_attention_is_torchs():
    attention = TaskAttention(12, 3).double()
    torch.nn.init.normal_(attention.query.bias)
    torch.nn.init.normal_(attention.value.bias)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    key_bias = torch.randn(12).double()  # any: it changes nothing
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([getattr(attention, n).weight for n in ("query", "key", "value")]))
        theirs.in_proj_bias.copy_(torch.cat([attention.query.bias, key_bias, attention.value.bias]))
        theirs.out_proj.load_state_dict(attention.out.state_dict())
    queries, keys = torch.randn(2, 7, 12).double(), torch.randn(2, 4, 12).double()
    expected = attention.norm(attention.mix(theirs(queries, keys, keys, need_weights=False)[0]))
    torch.testing.assert_close(attention(queries, keys), expected)
    # two pictures of one pixel, with more queries than keys, and fewer
    torch.testing.assert_close(attention.at_each_pixel(queries[:, None], keys[:, None])[:, 0], expected)
    few = attention.at_each_pixel(queries[:, None, :2], keys[:, None])[:, 0]
    torch.testing.assert_close(few, expected[:, :2])


def test_token_attention_is_scaled_dot_product_attention(monkeypatch):
    attention = TaskAttention(12, 3).double()
    queries, keys = torch.randn(2, 7, 12).double(), torch.randn(2, 4, 12).double()
    given = [
        layer(x).view(2, -1, 3, 4).transpose(1, 2)
        for layer, x in ((attention.query, queries), (attention.key, keys), (attention.value, keys))
    ]
    met = F.scaled_dot_product_attention(*given).transpose(1, 2).reshape(2, 7, 12)
    torch.testing.assert_close(attention(queries, keys), attention.norm(attention.mix(attention.out(met))))


@every
def test_pictures_do_not_see_each_other(spec):
    module, given = built(spec).eval(), apart(3)
    whole = module(given)
    for i in range(3):
        alone = module({task: [x[i : i + 1] for x in xs] for task, xs in given.items()})
        for task in OUTPUTS:
            torch.testing.assert_close(whole[task][i : i + 1], alone[task], atol=1e-11, rtol=1e-11)


@every
def test_tasks_see_each_other_and_shared_maps_give_what_equal_ones_do(spec):
    module, given = built(spec).eval(), apart()
    before = module(given)
    given["depth"] = maps(seed=9)
    after = module(given)
    assert all((after[task] - before[task]).abs().max() > 1e-3 for task in OUTPUTS)
    same = module(shared())
    equal = module({task: maps() for task in OUTPUTS})
    for task in OUTPUTS:
        torch.testing.assert_close(same[task], equal[task], atol=1e-12, rtol=1e-12)


@every
def test_tasks_whose_first_maps_alone_are_shared_keep_their_later_ones(spec):
    """As where adapters of tasks begin in a later stage: the same output as with equal maps of their own."""
    module, given = built(spec).eval(), apart()
    first = next(iter(given.values()))[0]
    shares = {task: [first, *own[1:]] for task, own in given.items()}
    copies = {task: [first.clone(), *own[1:]] for task, own in given.items()}
    with torch.no_grad():
        for got, want in zip(module(shares).values(), module(copies).values(), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_a_pixel_attends_to_its_own_pixel():
    """Far from a change of the maps nothing changes, as it does where tokens of the whole grid are attended to."""
    for spec, local in ((SPECS[0], True), (SPECS[2], False)):
        module = built(spec).eval()
        for name, tensor in module.named_parameters():
            if ".spread." in name:  # every channel is read at its own place
                tensor.data.zero_()
        given = shared()
        before = module(given)["seg"]
        changed = [x.clone() for x in given["seg"]]
        changed[0][:, :, :4, :4] += 1
        after = module(dict.fromkeys(OUTPUTS, changed))["seg"]
        moved = (after - before).abs().amax((0, 1)) > 1e-9
        assert moved[:4, :4].all() and moved[8:, 8:].any() != local


@every
def test_order_of_tasks(spec):
    module = built(spec).eval()
    turned = spec.build_joint(FEATURES, dict(reversed(OUTPUTS.items()))).double().eval()
    turned.load_state_dict(module.state_dict(), strict=True)  # tensors are named by task
    given = apart()
    got, expected = turned(given), module(dict(reversed(given.items())))
    assert list(got) == list(reversed(OUTPUTS)) and list(expected) == list(OUTPUTS)
    for task in OUTPUTS:
        torch.testing.assert_close(got[task], expected[task], atol=1e-10, rtol=1e-10)


def test_the_first_step_runs_once_for_shared_maps():
    module = built(SPECS[0]).eval()
    runs = []
    module.join.register_forward_hook(lambda *_: runs.append(1))
    module(shared())
    assert len(runs) == 1
    same = maps()
    module({task: list(same) for task in OUTPUTS})  # other lists, the very same tensors
    assert len(runs) == 2
    module(apart())
    assert len(runs) == 5
    module({"seg": same, "depth": maps(seed=3), "keys": same})
    assert len(runs) == 7


@every
def test_every_parameter_learns_and_maps_get_gradients(spec):
    module, given = built(spec).train(), apart()
    for xs in given.values():
        for x in xs:
            x.requires_grad_()
    sum(((out - 1) ** 2).mean() for out in module(given).values()).backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(x.grad is not None and x.grad.any() for xs in given.values() for x in xs)


@every
@pytest.mark.parametrize("count", [1, 2])
def test_freezing_changes_no_bit(spec, count):
    module, given = built(spec).float().eval(), apart(count, dtype=torch.float32)
    trained = module(given)
    frozen = module.requires_grad_(False)(given)
    assert all(torch.equal(trained[task], frozen[task]) for task in OUTPUTS)


def test_two_steps_from_the_start_move_everything():
    torch.manual_seed(0)
    module, given = SPECS[0].build_joint(FEATURES, OUTPUTS).train(), apart(dtype=torch.float32)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    alive = set()
    for _ in range(2):
        optimizer.zero_grad()
        sum(((out - 1) ** 2).mean() for out in module(given).values()).backward()
        alive |= {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert alive == {n for n, _ in module.named_parameters()}


def test_how_it_starts():
    torch.manual_seed(0)
    module = DeMT().build_joint(FEATURES, OUTPUTS)
    for name, tensor in module.named_parameters():
        if ".offsets." in name or name.endswith("classifier.bias"):
            assert not tensor.any(), name
        elif name.endswith("classifier.weight"):
            assert tensor.shape[1] == sum(WIDTHS) // 8 == 10
            assert 0.005 < tensor.std() < 0.015, name
        elif tensor.ndim > 1:
            assert tensor.std() > 0.01, name


def swin_t_features() -> list[FeatureInfo]:
    return [FeatureInfo(c, s) for c, s in zip((96, 192, 384, 768), (4.0, 8.0, 16.0, 32.0), strict=True)]


def test_swin_t_has_the_printed_count():
    with torch.device("meta"):
        trunk = gn.backbone("swin_tiny_patch4_window7_224")
        decoder = DeMT().build_joint(trunk.features, {"seg": 40, "normals": 3, "depth": 1, "edges": 1})
        deeper = DeMT(depth=2).build_joint(trunk.features, {"seg": 40, "normals": 3, "depth": 1, "edges": 1})
    by_hand = (
        *(1440 * 256 + 256, 2 * 256),  # join
        4 * (2 * (256 * 256 + 256) + 2 * 2 * 256 + 9 * 256 * 18 + 18 + 9 * 9 * 512 + 512),  # mixers
        5 * (5 * 256 * 256 + 4 * 256 + 2 * 256),  # interaction and queries
        4 * (9 * 256 * 180 + 2 * 180) + (180 + 1) * 45,  # outputs
    )
    assert count(decoder) == sum(by_hand) == 4_548_281
    assert count(trunk) + count(decoder) == 32_066_099
    final_norm, key_biases = 2 * 768, 5 * 256
    for left_out in (0, final_norm, key_biases, final_norm + key_biases):
        assert round((count(trunk) + count(decoder) + left_out) / 1e6, 2) == 32.07
    assert round((count(trunk) + count(deeper)) / 1e6, 2) == 32.93
    assert round((count(trunk) + 2 * count(decoder)) / 1e6, 1) == 36.6


@pytest.mark.parametrize(
    ("spec", "gmac"),
    [
        (DeMT(), "65.6"),
        (DeMT(attention="token"), "63.2"),
        (DeMT(attention="token", reduction=4), "130.3"),
        (DeMT(attention="token", reduction=1), "2,662.9"),
        (DeMT(depth=2), "76.3"),
        (DeMT(channels=64), "9.1"),
    ],
)
def test_the_docstring_states_what_it_costs(spec, gmac):
    with torch.device("meta"):
        module = spec.build_joint(swin_t_features(), {"seg": 21, "parts": 7, "sal": 1, "normals": 3}).eval()
        given = [torch.zeros(1, f.channels, *[round(448 / f.stride)] * 2) for f in swin_t_features()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(dict.fromkeys(("seg", "parts", "sal", "normals"), given))
    macs = counter.get_total_flops() // 2
    assert f"{macs / 1e9:,.1f}" == gmac
    assert gmac in DeMT.__doc__ or f"{macs / 1e9:,.0f}" in DeMT.__doc__
    if spec == DeMT():  # by hand: N pixels, C²s, and what is small
        n, c = 112**2, 256
        join = sum(f.channels * c * round(448 / f.stride) ** 2 for f in swin_t_features())
        mixers = 4 * n * (2 * c * c + 9 * c * 18 + 9 * 9 * 512)
        interaction = 4 * n * (5 * c * c + 2 * 4 * c)
        queries = 4 * n * (5 * c * c + 2 * 4 * 4 * c)
        outputs = n * (4 * 9 * c * 180 + 180 * 32)
        assert macs == join + mixers + interaction + queries + outputs


@pytest.mark.parametrize(("attention", "gigabytes"), [("pixel", "1.6"), ("token", "0.9")])
def test_the_docstring_states_what_backward_keeps(attention, gigabytes):
    """Of a picture of 112², times 16: all that is kept grows with the grid."""
    tasks = {"seg": 21, "parts": 7, "sal": 1, "normals": 3}
    module = DeMT(attention=attention).build_joint(swin_t_features(), tasks)
    given = [torch.randn(1, f.channels, *[round(112 / f.stride)] * 2) for f in swin_t_features()]
    own = (*module.parameters(), *module.buffers(), *given)
    kept = bytes_for_backward(lambda: sum(out.sum() for out in module(dict.fromkeys(tasks, given)).values()), own)
    assert f"{16 * kept / 1e9:.1f}" == gigabytes
    assert f"{gigabytes} GB" in DeMT.__doc__


def test_a_plain_vits_maps_and_one_task():
    plain = [FeatureInfo(12, 14)] * 4
    tokens = [torch.randn(1, 12, 5, 7) for _ in range(4)]
    for attention in ("pixel", "token"):
        spec = DeMT(channels=16, attention=attention)
        assert spec.pyramid and spec.interacts
        module = spec.build_joint(pyramid_info(plain), {"only": 3}).eval()
        assert module({"only": resample_pyramid(tokens)})["only"].shape == (1, 3, 20, 28)
    thin = DeMT(channels=4, heads=1).build_joint([FeatureInfo(3, 4)], {"only": 2})  # fewer channels than eight
    assert thin({"only": [torch.randn(2, 3, 1, 5)]})["only"].shape == (2, 2, 1, 5)


@every
def test_half_precision_stays_near(spec):
    module = built(spec).float().eval()
    given = shared(dtype=torch.float32)
    with torch.no_grad():
        expected = module(given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = module(given)
    for task in OUTPUTS:
        far = (got[task].float() - expected[task]).abs().mean() / expected[task].abs().mean()
        assert far < 0.1


#: of two tasks, for time; either attention, and maps that tasks share or have for themselves
CAPTURED = [(SPECS[0], apart), (SPECS[2], shared)]
captured = pytest.mark.parametrize(("spec", "given"), CAPTURED, ids=["pixel-apart", "token-shared"])
TWO = ("seg", "keys")


@pytest.mark.compile
@captured
def test_compiles_to_one_graph(spec, given):
    module = built(spec, {t: OUTPUTS[t] for t in TWO}).eval()
    given = {t: given()[t] for t in TWO}
    torch._dynamo.reset()
    with torch.no_grad():
        got = torch.compile(module, backend="eager", fullgraph=True)(given)
        for task, want in module(given).items():
            torch.testing.assert_close(got[task], want, atol=1e-9, rtol=1e-9)


@pytest.mark.export
@captured
def test_exports(spec, given):
    module = built(spec, {t: OUTPUTS[t] for t in TWO}).eval()
    given = {t: given()[t] for t in TWO}
    program = torch.export.export(module, (given,))
    assert "torchvision" not in str(program.graph)
    got = program.module()(given)
    for task, want in module(given).items():
        torch.testing.assert_close(got[task], want, atol=1e-9, rtol=1e-9)


def test_options_survive_lookup():
    for spec in SPECS:
        assert registry.build("heads", **registry.describe(spec)) == spec


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DeMT(attention="pixels"), "DeMT.attention: expected one of pixel, token; got 'pixels'"),
        (lambda: DeMT(channels=250), "DeMT.channels: 250 is not divisible by 4 heads; nearest: 248"),
        (lambda: DeMT(channels=2), "2 is not divisible by 4 heads; nearest: 4"),
        (lambda: DeMT(depth=0), "DeMT.depth: expected a whole number from 1 to 256, got int 0"),
        (lambda: DeMT(heads=0), "DeMT.heads: expected a whole number from 1 to 4,096, got int 0"),
        (lambda: DeMT(reduction=0), "DeMT.reduction: expected a whole number from 1 to 65,536, got int 0"),
        (lambda: DeMT().build_joint([], {"seg": 3}), "needs features and outputs, got 0 maps"),
        (lambda: DeMT().build_joint(FEATURES, {}), "needs features and outputs"),
        (lambda: DeMT().build_joint(FEATURES, {"seg": 0}), "needs features and outputs.*'seg': 0"),
    ],
)
def test_options_are_checked(make, said):
    with pytest.raises(OptionError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)
