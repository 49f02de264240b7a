"""The shared-base decoder.

Truths: its formula in float64, written out without any rearrangement; counts by hand; bytes of the file itself.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import garnish as gn
from garnish import registry
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import Head, pyramid_info, resample_pyramid
from garnish.heads.shared_base import SharedBaseHead
from garnish.model.model import Model
from garnish.model.report import count_macs

WIDTHS = (8, 16, 24, 32)
FEATURES = [FeatureInfo(c, s) for c, s in zip(WIDTHS, (4, 8, 16, 32), strict=True)]
#: maps of a 53×75 picture, as ceil(side / stride)
ODD_SIZES = [(14, 19), (7, 10), (4, 5), (2, 3)]
OUTPUTS = {"seg": 5, "depth": 1, "keys": 3}  # the last is also a method of nn.ModuleDict
SPECS = [SharedBaseHead(channels=12), SharedBaseHead(channels=10, direct=False)]
every = pytest.mark.parametrize("spec", SPECS, ids=["direct", "indirect"])
#: the four tasks of Replica, 14 classes
FOUR = {"seg": gn.Semantic(classes=14), "depth": gn.Depth(max_metres=5), "normals": gn.Normals(), "edges": gn.Edges()}


def maps(count: int = 2, *, seed: int = 0, sizes=ODD_SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    return [torch.randn(count, c, *s, **draw) for c, s in zip(WIDTHS, sizes, strict=True)]


def shared(count: int = 2, **options) -> dict[str, list[torch.Tensor]]:
    return dict.fromkeys(OUTPUTS, maps(count, **options))


def apart(count: int = 2, **options) -> dict[str, list[torch.Tensor]]:
    return {task: maps(count, seed=i, **options) for i, task in enumerate(OUTPUTS)}


def built(spec: SharedBaseHead) -> nn.Module:
    """A decoder in float64 with every tensor random."""
    module = spec.build_joint(FEATURES, OUTPUTS).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point():
                continue
            scale = 1 / (tensor[0].numel() if tensor.ndim > 1 else 4) ** 0.5
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return module


def formula(
    state: dict[str, torch.Tensor], given: dict[str, list[torch.Tensor]], *, training: bool
) -> dict[str, torch.Tensor]:
    """The docstring, one step after the other: maps are normed, grown and joined before any of them is projected."""

    def layer_norm(x, name, eps):
        mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        weight, bias = (state[f"{name}.{leaf}"][:, None, None] for leaf in ("weight", "bias"))
        return (x - mean) / (var + eps).sqrt() * weight + bias

    out = {}
    for task, xs in given.items():
        size = xs[0].shape[-2:]
        normed = [layer_norm(x, f"base.norms.{i}", 1e-6) for i, x in enumerate(xs)]
        joined = torch.cat([F.interpolate(x, size, mode="bilinear", align_corners=False) for x in normed], 1)
        weight = torch.cat([state[f"base.projections.{i}.weight"] for i in range(len(xs))], 1)
        h = torch.einsum("oc,bchw->bohw", weight, joined)
        h = layer_norm(h, "base.norm", 1e-5).clamp(min=0)
        h = torch.einsum("oc,bchw->bohw", state["base.fuse.weight"], h) + state["base.fuse.bias"][:, None, None]
        part = f"parts.task_{task}"
        padded = F.pad(h, (1, 1, 1, 1))
        taps = state[f"{part}.depthwise.weight"]
        z = sum(
            taps[:, 0, i, j, None, None] * padded[..., i : i + size[0], j : j + size[1]]
            for i in range(3)
            for j in range(3)
        )
        mean, var = state[f"{part}.norm.running_mean"], state[f"{part}.norm.running_var"]
        if training:
            mean, var = z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)
        z = (z - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        z = z * state[f"{part}.norm.weight"][:, None, None] + state[f"{part}.norm.bias"][:, None, None]
        classifier = state[f"{part}.classifier.weight"][..., 0, 0]
        out[task] = torch.einsum("oc,bchw->bohw", classifier, z.clamp(min=0))
        out[task] += state[f"{part}.classifier.bias"][:, None, None]
        if f"{part}.direct.0.weight" in state:
            weight = torch.cat([state[f"{part}.direct.{i}.weight"] for i in range(len(xs))], 1)
            out[task] += torch.einsum("oc,bchw->bohw", weight, joined)
    return out


@every
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("given", [shared, apart], ids=["shared", "apart"])
def test_it_is_its_formula(spec, training, given):
    module = built(spec).train(training)
    expected = formula({k: v.clone() for k, v in module.state_dict().items()}, given(), training=training)
    got = module(given())
    assert list(got) == list(OUTPUTS)
    for task, channels in OUTPUTS.items():
        assert got[task].shape == (2, channels, 14, 19) and expected[task].std() > 0.02
        torch.testing.assert_close(got[task], expected[task], atol=1e-9, rtol=1e-9)


@every
def test_pictures_do_not_see_each_other(spec):
    module, given = built(spec).eval(), apart(3)
    whole = module(given)
    for i in range(3):
        alone = module({task: [x[i : i + 1] for x in xs] for task, xs in given.items()})
        for task in OUTPUTS:
            torch.testing.assert_close(whole[task][i : i + 1], alone[task], atol=1e-11, rtol=1e-11)


def calls_of(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_the_base_runs_once_for_tasks_that_read_the_same_maps():
    module = built(SPECS[0]).eval()
    calls = calls_of(module.base)
    same = module(shared())
    assert len(calls) == 1
    equal = module({task: maps() for task in OUTPUTS})
    assert len(calls) == 1 + 3  # equal, but not the same
    for task in OUTPUTS:
        torch.testing.assert_close(same[task], equal[task], atol=1e-12, rtol=1e-12)
    given = apart()
    given["keys"] = given["seg"]
    assert list(module(given)) == list(OUTPUTS)
    assert len(calls) == 1 + 3 + 2


def test_tasks_do_not_see_each_other_and_come_with_pictures_of_their_own():
    module, given = built(SPECS[0]).eval(), apart()
    whole = module(given)
    few = {"depth": [x[:1] for x in given["depth"]], "keys": given["keys"]}
    got = module(few)
    assert list(got) == ["depth", "keys"]
    torch.testing.assert_close(got["depth"], whole["depth"][:1], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(got["keys"], whole["keys"], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("sizes", [ODD_SIZES, [(1, 1)] * 4, [(9, 1), (5, 1), (3, 1), (2, 1)], [(5, 5)] * 4])
def test_any_grid(sizes):
    module = built(SPECS[0]).eval()
    out = module(shared(sizes=sizes))
    assert all(out[task].shape == (2, n, *sizes[0]) and out[task].isfinite().all() for task, n in OUTPUTS.items())


def test_a_plain_vits_maps():
    plain = [FeatureInfo(12, 14)] * 4
    spec = SharedBaseHead(channels=8)
    assert spec.pyramid and not spec.interacts
    module = spec.build_joint(pyramid_info(plain), {"only": 3}).eval()
    given = resample_pyramid([torch.randn(1, 12, 5, 7) for _ in range(4)])
    assert module({"only": given})["only"].shape == (1, 3, 20, 28)


@pytest.mark.parametrize(("method", "runs"), [(gn.LoRA(rank=2), 1), (gn.VMTAdapter(), 3), (gn.Frozen(), 1)])
def test_in_a_model_it_runs_once_where_the_adapters_are_shared(method, runs):
    options = {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]}
    trunk = gn.backbone("swin_tiny_patch4_window7_224", options=options)
    tasks = {"seg": gn.Semantic(classes=5), "depth": gn.Depth(max_metres=10), "normals": gn.Normals()}
    model = gn.adapt(trunk, method, tasks, SharedBaseHead(channels=8)).eval()
    calls = calls_of(model.head("seg").base)
    out = model(torch.rand(2, 3, 45, 75), tasks=None)
    assert len(calls) == runs and all(out[task].shape[-2:] == (45, 75) for task in tasks)
    assert {n for n in model.decoders.reached_by("seg") if "task_" in n} == {
        n for n in model.decoders.tensors("seg") if ".task_seg." in n
    }


TWO = ("seg", "keys")


@pytest.mark.compile
@pytest.mark.parametrize("given", [apart, shared])
def test_compiles_to_one_graph(given):
    module, given = built(SPECS[0]).eval(), {t: given()[t] for t in TWO}
    torch._dynamo.reset()
    with torch.no_grad():
        got = torch.compile(module, backend="eager", fullgraph=True)(given)
        for task, want in module(given).items():
            torch.testing.assert_close(got[task], want, atol=1e-9, rtol=1e-9)


@pytest.mark.export
@pytest.mark.parametrize("given", [apart, shared])
def test_exports(given):
    module, given = built(SPECS[0]).eval(), {t: given()[t] for t in TWO}
    got = torch.export.export(module, (given,)).module()(given)
    for task, want in module(given).items():
        torch.testing.assert_close(got[task], want, atol=1e-9, rtol=1e-9)


# ---- what it costs ------------------------------------------------------------------------------------------------

TRUNKS = {"Swin-T": "swin_tiny_patch4_window7_224", "ViT-S": "vit_small_patch14_dinov2"}


def of_four(trunk: str, head: Head, method=None) -> Model:
    return gn.adapt(gn.backbone(TRUNKS[trunk]), method or gn.Frozen(), dict(FOUR), head).eval()


def decoder_cost(model: Model) -> tuple[int, int]:
    """(trained parameters of the decoders, MACs at 448²)."""
    total, encoder = count_macs(model, (448, 448))
    heads = [p for n, p in model.trained_parameters().items() if n.startswith("heads.")]
    return sum(p.numel() for p in heads), total - encoder


@pytest.mark.slow
@pytest.mark.parametrize("trunk", TRUNKS)
def test_it_costs_a_fraction_of_separate_heads(trunk):
    parameters, macs = decoder_cost(of_four(trunk, SharedBaseHead()))
    wide = decoder_cost(of_four(trunk, gn.SegFormerHead(channels=256)))
    narrow = decoder_cost(of_four(trunk, gn.SegFormerHead(channels=64)))
    assert parameters <= 0.06 * wide[0] and macs <= 0.06 * wide[1]
    assert parameters <= 0.35 * narrow[0] and macs <= 0.35 * narrow[1]
    widths = {"Swin-T": (96, 192, 384, 768), "ViT-S": (384,) * 4}[trunk]
    outputs = 14 + 1 + 3 + 1
    base = sum(2 * w + 64 * w for w in widths) + 2 * 64 + 65 * 64
    parts = 4 * (9 * 64 + 2 * 64) + 65 * outputs + sum(widths) * outputs
    assert parameters == base + parts
    # VMT-Adapter gives each task maps of its own, so that the base runs four times
    apart = decoder_cost(of_four(trunk, SharedBaseHead(), gn.VMTAdapter()))
    assert apart[0] == parameters and apart[1] <= 0.35 * wide[1]


def test_four_tasks_and_their_adapters_fit_into_a_mebibyte(tmp_path):
    model = of_four("ViT-S", SharedBaseHead(), gn.LoRA(rank=4))
    folder = model.save(tmp_path / "bundle", dtype="float16")
    assert (folder / "weights.safetensors").stat().st_size == model.report()["bundle_bytes"] == 889_422
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2**20


# ---- options ------------------------------------------------------------------------------------------------------


def test_options_survive_lookup():
    for spec in SPECS:
        assert registry.build("heads", **registry.describe(spec)) == spec


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: SharedBaseHead(channels=0),
            "SharedBaseHead.channels: expected a whole number from 1 to 4,096, got int 0",
        ),
        (lambda: SharedBaseHead().build_joint([], {"seg": 3}), "needs features and outputs, got 0 maps"),
        (lambda: SharedBaseHead().build_joint(FEATURES, {}), "needs features and outputs"),
        (lambda: SharedBaseHead().build_joint(FEATURES, {"seg": 0}), "needs features and outputs.*'seg': 0"),
    ],
)
def test_options_are_checked(make, said):
    with pytest.raises(OptionError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)
