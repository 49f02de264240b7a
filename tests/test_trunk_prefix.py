"""Passes that start behind what no adapter changes: the same maps, on every family; what is refused, and why."""

from __future__ import annotations

import pytest
import torch

import garnish as gn
import tiny
from garnish.engine.trunk_start import TrunkState, run_prefix
from garnish.errors import OptionError
from garnish.model.unchanged_start import begin, prefix_of

TASKS = {"seg": gn.Semantic(classes=3), "depth": gn.Depth(max_metres=10.0)}
SIZE = (50, 64)


def last_layers(trunk):
    """Names of all layers of the last block but grouped convolutions."""
    stage = len(trunk.stages) - 1
    at = f"stages.{stage}.blocks.{len(trunk.stages[stage].blocks) - 1}."
    layers = [(s.name, m) for s, m in trunk.sites_with_modules() if s.kind == "layer" and s.name.startswith(at)]
    return tuple(name for name, module in layers if getattr(module, "groups", 1) == 1)


METHODS = {
    "Frozen": lambda trunk: gn.Frozen(),
    "SideTuning": lambda trunk: gn.SideTuning(reduction=2),
    "Partial": lambda trunk: gn.Partial(blocks=1),
    "LoRA": lambda trunk: gn.LoRA(rank=2, layers=last_layers(trunk)),
    "LoRA per task": lambda trunk: gn.LoRA(rank=2, layers=last_layers(trunk), per_task=True),
}


def made(short, method, taps="stage", tasks=TASKS):
    """A tiny model all of whose own tensors are random."""
    torch.manual_seed(0)
    _, name, options = tiny.BACKBONES[short]
    trunk = gn.backbone(name, options=options, taps=taps)
    model = gn.adapt(trunk, METHODS[method](trunk), tasks, gn.LinearHead())
    randomise(model)
    return model.eval()


def randomise(model):
    with torch.no_grad():
        for parameter in model.own_tensors().values():
            if parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn(parameter.shape))


def passes_of(trunk):
    """Counts calls of the stem and of every block."""
    calls = []
    trunk.stem.register_forward_hook(lambda *_: calls.append(0))
    number = 0
    for stage in trunk.stages:
        for block in stage.blocks:
            number += 1
            for residual in block.children():
                residual.register_forward_hook(lambda *_, n=number: calls.append(n))
    return calls


FAMILIES = [
    *(("vit", m, "stage") for m in METHODS),
    *(("dinov3", m, "stage") for m in METHODS),
    *(("swin", m, t) for m in METHODS for t in ("stage", "merged") if (m, t) != ("SideTuning", "merged")),
    *(("mit", m, "stage") for m in METHODS),
    *(("convnext", m, "stage") for m in METHODS),
    *(("cnn", m, "stage") for m in METHODS),
    *(("convnext", m, "merged") for m in ("Frozen", "Partial", "LoRA")),
    ("swinv2", "LoRA", "merged"),
]


@pytest.mark.parametrize(("short", "method", "taps"), FAMILIES)
def test_a_pass_from_a_kept_state_gives_the_same(short, method, taps):
    model = made(short, method, taps)
    images = tiny.pictures(3, *SIZE)
    prefix = prefix_of(model, TASKS)
    states = [begin(model, images[i : i + 1], prefix) for i in range(3)]
    wanted = [["seg"], ["seg", "depth"], ["depth"]]
    with torch.no_grad():
        expected = {"all": model(images), "some": model(images, wanted)}
        calls = passes_of(model.backbone)
        start = TrunkState.stack(states)
        found = {"all": model(images, start=start), "some": model(images, wanted, start)}
    last = sum(len(stage.blocks) for stage in model.backbone.stages)
    assert set(calls) <= ({last} if method not in ("Frozen", "SideTuning") else set())
    for which, outputs in expected.items():
        for task, out in outputs.items():
            torch.testing.assert_close(found[which][task], out, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["Partial", "LoRA", "SideTuning"])
def test_gradients_are_the_same(method):
    model = made("dinov3", method).train()
    images = tiny.pictures(2, *SIZE)
    grads = []
    for start in (None, begin(model, images, prefix_of(model, TASKS))):
        out = model(images, start=start)
        sum(x.square().sum() for x in out.values()).backward()
        grads.append({n: p.grad for n, p in model.trained_parameters().items()})
        for parameter in model.parameters():
            parameter.grad = None
    assert all(g is not None and g.abs().sum() > 0 for n, g in grads[0].items() if ".norm" not in n)
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-3)


def test_maps_that_tasks_change_alone_start_at_the_end():
    trunk = gn.backbone(*tiny.BACKBONES["vit"][1:2], options=tiny.BACKBONES["vit"][2])
    model = gn.adapt(trunk, gn.LoRA(rank=2), TASKS)
    with pytest.raises(OptionError, match=r"LoRA changes stages\.0\.blocks\.0\.attn, which lies before the .* second"):
        prefix_of(model, ["seg"])
    model.add(gn.Frozen(), {"edges": gn.Edges()})
    assert prefix_of(model, ["edges"]).unit == len(trunk.units)
    with pytest.raises(OptionError, match="LoRA changes"):
        prefix_of(model, ["edges", "depth"])


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (lambda: gn.LoRA(rank=2), "LoRA changes stages.0.blocks.0.attn"),
        (lambda: gn.VMTAdapter(), "VMTAdapter changes stages.0.blocks.0.mlp"),
        (lambda: gn.VPT(prompts=2), "VPT changes stages.0.enter"),
        (lambda: gn.FullFineTuning(), "FullFineTuning lets the trunk's own dropout act"),
        (lambda: gn.BitFit(), "BitFit changes stem"),
        (lambda: gn.Partial(blocks=4), "Partial changes stages.0.blocks.0.attn"),
        (lambda: [gn.Partial(blocks=1), gn.NormTuning()], "Partial + NormTuning changes stages.0.blocks.0.attn"),
        (lambda: gn.MTLoRA(rank=2, task_rank=2), "MTLoRA changes"),
    ],
)
def test_what_changes_the_trunk_early_is_named(method, said):
    torch.manual_seed(0)
    trunk = gn.backbone("vit_tiny_patch16_224", options=tiny.BACKBONES["vit"][2])
    model = gn.adapt(trunk, method(), TASKS)
    with pytest.raises(OptionError) as refused:
        prefix_of(model, TASKS)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_start_that_does_not_fit_is_refused():
    model = made("vit", "Partial")
    images = tiny.pictures(2, *SIZE)
    late = begin(made("vit", "Frozen"), images, prefix_of(made("vit", "Frozen"), TASKS))
    with pytest.raises(OptionError, match=r"Partial changes stages\.3\.blocks\.0\.attn, which lies before it"):
        model(images, start=late)
    early = begin(model, images, prefix_of(model, TASKS))
    with pytest.raises(OptionError, match="kept for 2 pictures of 50x64, not for 1 of 50x64"):
        model(images[:1], start=early)
    with pytest.raises(OptionError, match="kept for 2 pictures of 50x64, not for 2 of 64x50"):
        model(images.transpose(2, 3), start=early)
    side = made("vit", "SideTuning")
    with pytest.raises(OptionError, match="side network"):
        side(images, start=late)
    model.compile(backend="eager")
    with pytest.raises(OptionError, match="compiled"):
        prefix_of(model, TASKS)
    with pytest.raises(OptionError, match="compiled"):
        model(images, start=early)


def test_a_start_behind_what_a_tasks_shared_owner_changes_is_refused():
    """Tasks' own parts of MTLoRA stand in the last blocks of stages, the shared updates everywhere."""
    model = tiny.model("vit", gn.MTLoRA(rank=2, task_rank=2))
    bare = tiny.model("vit", gn.Frozen())
    x = tiny.pictures()
    first = min(at.site.unit for part in model.owners[0].parts for at in part.places.values())
    unit = model.backbone.body.rest_before(first)
    assert unit > 1
    state = run_prefix(bare.backbone, bare.prepare(x), (64, 64), unit)
    with pytest.raises(OptionError, match=r"start: MTLoRA changes .* which lies before it"):
        model(x, start=state)


def test_picking_and_stacking_keep_what_stands_twice_once():
    model = made("vit", "SideTuning")
    images = tiny.pictures(3, *SIZE)
    state = begin(model, images, prefix_of(model, TASKS))
    picked = state.pick(torch.tensor([2, 0]))
    assert len(picked) == 2 and picked.size == SIZE
    again = TrunkState.stack([state.pick(slice(i, i + 1)) for i in range(3)])
    for (name, x), (other, y) in zip(state.named(), again.named(), strict=True):
        assert name == other and torch.equal(x, y) and (x.stride(1) == 1) == (y.stride(1) == 1), name
