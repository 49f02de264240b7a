"""Low-rank updates without gradients: written into the frozen layer's output, where nobody else holds it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import garnish as gn
import tiny
from garnish.adapters.layers.low_rank import low_rank
from garnish.engine.adapted import Adapted
from garnish.engine.context import ForwardContext


@pytest.mark.parametrize("shape", [(3, 7, 10), (2, 4, 5, 10), (6, 10)])
def test_the_sum_is_that_of_after(shape):
    layer = nn.Linear(10, 6)
    adapter = low_rank("here", layer, 3, 0.7, 0.0).eval()
    nn.init.normal_(adapter.lora_b)
    x = torch.randn(shape)
    with torch.no_grad():
        y = layer(x)
        want = adapter.after(x, y, ForwardContext(grid=(1, 1)))
        assert adapter.add_to(x, y) and torch.equal(y, want)
        weight = layer.weight + 0.7 * adapter.lora_b @ adapter.lora_a
        assert torch.allclose(y, torch.nn.functional.linear(x, weight, layer.bias), atol=1e-5)


@pytest.mark.parametrize("short", ["vit", "swin", "mit"])
def test_outputs_are_the_same_with_gradients_and_without(short, monkeypatch):
    model = tiny.model(short, gn.LoRA(rank=2, per_task=True)).eval()
    images, mix = tiny.pictures(), tiny.MIX
    written: list[bool] = []
    own = Adapted._is_own
    monkeypatch.setattr(Adapted, "_is_own", lambda self, y: written.append(own(self, y)) or written[-1])
    with_gradients = model(images, mix)
    assert not any(written)
    written.clear()
    with torch.no_grad():
        without = model(images, mix)
    with torch.inference_mode():
        inferred = model(images, mix)
    assert any(written)
    for task, out in with_gradients.items():
        assert torch.equal(out, without[task]) and torch.equal(out, inferred[task]), task


def test_rows_of_several_owners_and_what_others_hold():
    model = tiny.model("vit", gn.LoRA(rank=2, per_task=True)).eval()
    images, mix = tiny.pictures(), [["seg"], ["depth"], ["normals"]]
    with torch.no_grad():
        found = model(images, mix)
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        for module in model.backbone.modules():
            if isinstance(module, Adapted) and type(module.layer) is nn.Linear:
                module.layer.register_forward_hook(lambda _, given, out: seen.append((out, out.clone())))
        watched = model(images, mix)
    assert seen and all(torch.equal(out, kept) for out, kept in seen)  # who hooks a layer keeps what it gave
    for number, ((task,), out) in enumerate(zip(mix, found.values(), strict=True)):
        with torch.no_grad():
            alone = model(images[number : number + 1], [task])[task]
        assert torch.equal(out, watched[task]) and tiny.far(out, alone) <= 1e-5
