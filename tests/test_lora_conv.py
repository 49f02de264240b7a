"""LoRA on convolutions: grouped, depthwise, padded as TensorFlow pads; the merged layer and PEFT's computation."""

from __future__ import annotations

import warnings

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import garnish
import tiny
from garnish import registry
from garnish.adapters.layers.low_rank import LoRAAdapter, low_rank
from garnish.backbones.convolution import SameConv2d, replace_same_convolutions
from garnish.engine.context import ForwardContext
from garnish.engine.folding import folded_trunk
from garnish.errors import SiteError

SHAPES = {  # channels in and out, kernel, groups, rank
    "ungrouped": (8, 12, (3, 3), 1, 5),
    "grouped": (8, 12, (3, 5), 4, 8),
    "depthwise": (6, 6, (7, 7), 6, 6),
    "multiplied": (6, 12, (3, 3), 6, 6),
}


def random_update(layer: nn.Conv2d, rank: int, *, dora: bool = False) -> LoRAAdapter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        update = low_rank("LoRA at x", layer, rank, 0.7, 0.0, dora=dora)
    with torch.no_grad():
        for parameter in update.parameters():
            parameter.add_(torch.randn_like(parameter))
    return update


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("geometry", [{}, {"stride": 2, "padding": (1, 2)}, {"dilation": 2, "padding": "same"}])
@pytest.mark.parametrize("same", [False, True])
def test_merged_layer_is_the_sum(shape, geometry, same):
    torch.manual_seed(0)
    i, o, kernel, groups, rank = SHAPES[shape]
    if same:
        geometry = {k: v for k, v in geometry.items() if k != "padding"}
    layer = (SameConv2d if same else nn.Conv2d)(i, o, kernel, groups=groups, **geometry).double()
    update = random_update(layer, rank)
    x = torch.randn(2, i, 17, 20, dtype=torch.float64)
    expected = update.after(x, layer(x), ForwardContext(grid=(17, 20)))
    weight, bias = update.merged(layer.weight, layer.bias)
    assert weight.shape == layer.weight.shape and torch.equal(bias, layer.bias)
    torch.testing.assert_close(layer._conv_forward(x, weight, bias), expected, rtol=0, atol=1e-10)
    assert (expected - layer(x)).abs().max() > 0.1
    # element by element: W + s Σ_k B[o, k] A[k of the group of o, i]
    for out in range(o):
        first = out // (o // groups) * (rank // groups)
        rows = update.lora_a[first : first + rank // groups]
        want = layer.weight[out] + 0.7 * torch.einsum("k,kiyx->iyx", update.lora_b[out], rows)
        torch.testing.assert_close(weight[out], want)


@pytest.mark.reference
@pytest.mark.parametrize("shape", list(SHAPES))
def test_computes_what_peft_computes(shape):
    torch.manual_seed(0)
    i, o, kernel, groups, rank = SHAPES[shape]
    layer = nn.Conv2d(i, o, kernel, stride=2, padding=1, groups=groups)
    update = random_update(layer, rank)
    config = peft.LoraConfig(r=rank, lora_alpha=0.7 * rank, target_modules=["0"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot merge grouped convolutions
        theirs = peft.get_peft_model(nn.Sequential(layer), config)
    tensors = dict(theirs.named_parameters())
    with torch.no_grad():
        # theirs reads the channels of all groups: the same map has zeros between them
        dense = torch.zeros(rank, i, *kernel)
        for k in range(rank):
            first = k // (rank // groups) * (i // groups)
            dense[k, first : first + i // groups] = update.lora_a[k]
        tensors["base_model.model.0.lora_A.default.weight"].copy_(dense)
        tensors["base_model.model.0.lora_B.default.weight"].copy_(update.lora_b[:, :, None, None])
    x = torch.randn(2, i, 17, 20)
    ours = update.after(x, layer(x), ForwardContext(grid=(17, 20)))
    torch.testing.assert_close(ours, theirs(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(17, 20), (16, 16)])
def test_same_convolution_is_timms(size):
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    for options in ({"stride": 2}, {"stride": 2, "bias": False}, {"dilation": 3}, {"stride": 2, "groups": 2}):
        theirs = nn.Sequential(Conv2dSame(4, 6, (5, 3), **options))
        x = torch.randn(2, 4, *size)
        expected = theirs(x)
        parameters = list(theirs.parameters())
        replace_same_convolutions(theirs)
        assert type(theirs[0]) is SameConv2d
        assert all(a is b for a, b in zip(theirs.parameters(), parameters, strict=True))
        assert torch.equal(theirs(x), expected)


@pytest.mark.parametrize(
    ("rank", "groups", "nearest"), [(3, 4, "use rank 4"), (6, 4, "use rank 8"), (1, 8, "use rank 8"), (9, 4, "rank 8")]
)
def test_a_rank_that_groups_do_not_divide_is_refused(rank, groups, nearest):
    with pytest.raises(SiteError, match=nearest) as caught:
        low_rank("LoRA at a.b", nn.Conv2d(8, 8, 3, groups=groups), rank, 1.0, 0.0)
    assert str(caught.value).startswith("LoRA at a.b: ") and "\n" not in str(caught.value)


def test_an_update_larger_than_its_convolution_is_warned_of():
    with pytest.warns(UserWarning, match=r"holds 60 parameters, the convolution of 6 groups itself 54"):
        low_rank("LoRA at x", nn.Conv2d(6, 6, 3, groups=6, bias=False), 6, 1.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low_rank("LoRA at x", nn.Conv2d(16, 16, 3, groups=2), 2, 1.0, 0.0)
        low_rank("LoRA at x", nn.Conv2d(4, 4, 1), 4, 1.0, 0.0)


@pytest.mark.parametrize("short", ["convnext", "cnn", "tf"])
@pytest.mark.parametrize("dora", [False, True])
def test_depthwise_layers_of_a_trunk(short, dora):
    """Rows of several tasks, and merging, through a depthwise convolution in its place (of a TensorFlow model, too)."""
    if short == "tf":
        trunk = garnish.backbone("tf_efficientnet_lite0", options={"out_indices": [0, 1]})
        tiny.randomise_trunk(trunk)
    else:
        trunk = tiny.backbone(short)
    modules = {s.name: m for s, m in trunk.sites_with_modules() if s.role == "conv_dw"}
    name = next(n for n, m in modules.items() if isinstance(m, SameConv2d) == (short == "tf"))
    assert modules[name].groups > 1
    method = garnish.LoRA(rank=modules[name].groups, layers=(name,), per_task=True, dora=dora)
    specs = {name: registry.build("tasks", *tiny.TASKS[name]) for name in tiny.TASKS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = garnish.adapt(trunk, method, specs)
    tiny.randomise_own(model)
    model = model.double().eval()
    x = tiny.pictures().double()
    with torch.no_grad():
        mixed = model(x, tiny.MIX)
        for task in model.tasks:
            wanting = [i for i, tasks in enumerate(tiny.MIX) if task in tasks]
            assert tiny.far(mixed[task], model(x, [task])[task][wanting]) < 1e-10
        prepared = model.prepare(x)
        expected = model.backbone(prepared, model.owners[1])
        for got, want in zip(folded_trunk(model.backbone, model.owners[1])(prepared), expected, strict=True):
            assert tiny.far(got, want) < 1e-10
        assert tiny.far(model.backbone(prepared, model.owners[2])[-1], expected[-1]) > 1e-3


def test_default_on_a_cnn_is_its_ungrouped_convolutions():
    trunk = tiny.backbone("cnn")
    chosen = set(garnish.LoRA(rank=2).plan(trunk).adapters)
    layers = {s.name: m for s, m in trunk.sites_with_modules() if s.kind == "layer"}
    assert chosen and all(isinstance(layers[n], nn.Conv2d) and layers[n].groups == 1 for n in chosen)
    left = set(layers) - chosen
    assert all("stem" in n or ".se." in n or layers[n].groups > 1 for n in left)
    assert any(".se." in n for n in left) and any(n.endswith("conv_dw") for n in left)
    # families that have linear layers keep to them
    trunk = tiny.backbone("convnext")
    assert {n.rsplit(".", 1)[-1] for n in garnish.LoRA(rank=2).plan(trunk).adapters} == {"fc1", "fc2"}


@pytest.mark.compile
def test_gathered_rows_of_a_grouped_convolution():
    """As in a compiled pass: each row's own weights under vmap."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4)
    updates = [random_update(layer, 8) for _ in range(3)]
    x = torch.randn(3, 2, 8, 9, 10)

    def one(a, b, x):
        row = (x, F.conv2d(x, layer.weight, layer.bias, 2, 1, 1, 4), ForwardContext(grid=(9, 10)))
        return torch.func.functional_call(updates[0], {"lora_a": a, "lora_b": b}, ("after", *row))

    mapped = torch.vmap(one)(torch.stack([u.lora_a for u in updates]), torch.stack([u.lora_b for u in updates]), x)
    for got, update, own in zip(mapped, updates, x, strict=True):
        torch.testing.assert_close(got, update.after(own, layer(own), ForwardContext(grid=(9, 10))))
