"""Stochastic depth of a frozen trunk: its rates, what it drops, when it acts, and what it refuses."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn

import garnish
import tiny
from comparing_cases import conditions
from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.comparing.arms import ArmRun
from garnish.comparing.conditions import Conditions
from garnish.engine.adapter import Method
from garnish.errors import OptionError
from garnish.model.model import Model, adapt
from garnish.model.unchanged_start import prefix_of
from garnish.recipes.build_model import build_model
from garnish.recipes.overrides import split_overrides
from garnish.recipes.recipe import SECTIONS, read_recipe

RESIDUAL = [short for short in tiny.BACKBONES if short != "cnn"]


def trunk_of(short: str, rate: float) -> Backbone:
    _, name, options = tiny.BACKBONES[short]
    trunk = garnish.backbone(name, options=options, drop_path=rate)
    tiny.randomise_trunk(trunk)
    return trunk


def model_of(short: str, rate: float, method: Method, tasks: tuple[str, ...] = ("seg", "depth")) -> Model:
    torch.manual_seed(0)
    specs = {task: registry.build("tasks", *tiny.TASKS[task]) for task in tasks}
    model = adapt(trunk_of(short, rate), method, specs, garnish.LinearHead())
    tiny.randomise_own(model)
    return model.eval()


def outputs(model: Model, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: out.detach() for name, out in model(tiny.pictures()).items()}


@pytest.mark.parametrize("short", RESIDUAL)
def test_rates_grow_over_the_blocks(short):
    trunk = trunk_of(short, 0.3)
    blocks = [block for stage in trunk.stages for block in stage.blocks]
    rates = [[residual.branch.drop_path.drop_prob for residual in block.values()] for block in blocks]
    for number, own in enumerate(rates):
        assert own == pytest.approx([0.3 * number / (len(blocks) - 1)] * len(own))


@pytest.mark.reference
@pytest.mark.parametrize("short", ["vit", "dinov3", "swin", "swinv2", "convnext"])
def test_rates_are_those_of_timm_s_own_option(short):
    _, name, options = tiny.BACKBONES[short]
    theirs = [
        m.drop_prob for m in timm.create_model(name, drop_path_rate=0.3, **options).modules() if type(m) is DropPath
    ]
    ours = [m.drop_prob for m in trunk_of(short, 0.3).modules() if isinstance(m, DropPath) and m.drop_prob]
    assert ours == pytest.approx([rate for rate in theirs if rate])


@pytest.mark.parametrize("short", RESIDUAL)
def test_a_branch_is_left_out_or_divided_by_the_rest(short):
    """Row by row ``x`` or ``x + branch / (1 - p)``, about p of the rows the former; by the paper's definition."""
    model = model_of(short, 0.5, garnish.Frozen())
    residual = list(model.backbone.stages[-1].blocks[-1].values())[-1]
    seen: list[Tensor] = []
    residual.register_forward_hook(lambda _m, given, out: seen.extend((given[0].detach(), out.detach())))
    model(tiny.pictures())
    x = seen[0][:1].expand(400, *[-1] * (seen[0].ndim - 1))
    with torch.no_grad():
        whole = residual(x) - x
        model.train()
        left = residual(x) - x
    kept = left.flatten(1).abs().amax(1) > 0
    torch.testing.assert_close(left[kept], whole[kept] / 0.5, rtol=1e-4, atol=1e-4)
    assert 0.4 < kept.float().mean() < 0.6


@pytest.mark.parametrize("name", ["LoRA", "AdaptFormer", "BitFit", "Partial", "MTLoRA", "SideTuning", "FullFineTuning"])
def test_it_acts_in_training_alone(name):
    """Of the frozen trunk, and of the modules that owners which tune in place have for themselves."""
    options = {"dropout": 0.0} if name in ("AdaptFormer", "MTLoRA") else {}
    method = registry.build("adapters", name, options)
    model, bare = model_of("swin", 0.6, method), model_of("swin", 0.0, method)
    same = outputs(bare, 0)
    assert all(torch.equal(outputs(model, 0)[task], same[task]) for task in same)
    for one in (model, bare):
        one.train()
    if name != "FullFineTuning":  # which lets act what the architecture's own option says
        assert all(torch.equal(outputs(bare, 0)[task], outputs(bare, 1)[task]) for task in same)
    assert all(torch.equal(outputs(model, 0)[task], outputs(model, 0)[task]) for task in same)
    assert all(tiny.far(outputs(model, 0)[task], outputs(model, 1)[task]) > 1e-3 for task in same)
    model.eval()
    assert all(torch.equal(outputs(model, 1)[task], same[task]) for task in same)


def test_no_pass_drops_once_all_tasks_are_frozen():
    model = model_of("vit", 0.6, garnish.BitFit())
    model.freeze(list(model.tasks))
    model.train()
    assert all(torch.equal(outputs(model, 0)[task], outputs(model, 1)[task]) for task in model.tasks)


@pytest.mark.parametrize("name", ["LoRA", "BitFit", "MTLoRA"])
def test_checkpointing_repeats_the_draws(name):
    model = model_of("swin", 0.5, registry.build("adapters", name, {"dropout": 0.0} if name == "MTLoRA" else {}))
    model.train()
    found = []
    for model.backbone.checkpointing in (False, True):
        torch.manual_seed(3)
        model.zero_grad()
        tiny.one_loss(model(tiny.pictures())).backward()
        found.append({n: p.grad for n, p in model.trained_parameters().items() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [garnish.LoRA(rank=2, per_task=True), garnish.MTLoRA(dropout=0.0)])
def test_rows_and_streams_of_one_picture_draw_for_themselves(method):
    """What one draws does not bind the other: their masks agree in about half of the draws, not in all."""
    model = model_of("swin", 0.5, method)
    path = next(iter(model.backbone.stages[-1].blocks[-1].values()))
    last = next(m for m in path.modules() if isinstance(m, DropPath))
    masks = []

    def note(module: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        masks.append(out.flatten(1).abs().amax(1) > 0)

    last.register_forward_hook(note)
    model.train()
    picture = tiny.pictures()[:1]
    drawn = []
    for _ in range(24):
        model(picture)
        drawn.append(torch.cat(masks))  # rows of two owners may take a pass each
        masks.clear()
    rows = torch.stack(drawn)
    assert rows.shape[1] >= 2
    equal = (rows[:, -1] == rows[:, -2]).float().mean()
    assert 0.2 < equal < 0.8


def test_kept_features_are_refused():
    model = model_of("vit", 0.1, garnish.Frozen())
    with pytest.raises(OptionError, match=r"drop_path 0\.1 of the trunk acts in training"):
        prefix_of(model, list(model.tasks))


@pytest.mark.parametrize(
    ("short", "rate", "options", "said"),
    [
        ("vit", 1.0, {}, "out of range; use 0 to below 1"),
        ("vit", -0.1, {}, "out of range"),
        ("vit", float("nan"), {}, "expected a number, got float nan"),
        ("vit", "much", {}, "expected a number"),
        ("vit", 0.1, {"drop_path_rate": 0.2}, "option drop_path_rate: leave one of them out"),
        ("mit", 0.1, {"drop_path": 0.2}, "option drop_path: leave one of them out"),
        ("cnn", 0.1, {}, "no residual branches to drop"),
    ],
)
def test_what_cannot_act_is_refused(short, rate, options, said):
    _, name, own = tiny.BACKBONES[short]
    with pytest.raises(OptionError, match=said) as caught:
        garnish.backbone(name, options={**own, **options}, drop_path=rate)
    assert "\n" not in str(caught.value) and "drop_path" in str(caught.value)


def test_bundles_do_not_hold_it(tmp_path):
    model = model_of("vit", 0.4, garnish.LoRA(rank=2))
    model.save(tmp_path / "bundle")
    loaded = garnish.load(tmp_path / "bundle", backbone=tiny.backbone("vit"))
    assert loaded.backbone.drop_path == 0.0
    assert all(tiny.far(outputs(loaded, 0)[task], outputs(model, 0)[task]) < 1e-2 for task in model.tasks)
    loaded.train()
    assert all(torch.equal(outputs(loaded, 0)[task], outputs(loaded, 1)[task]) for task in model.tasks)


def test_recipes_and_the_command_line_say_it(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("backbone: {name: garnish_b0, drop_path: 0.1}\nadapter: LoRA\ntrain: {steps: 1}\nout: runs/x\n")
    recipe = read_recipe(file)
    assert recipe.backbone.build().drop_path == 0.1
    assert recipe.resolved()["backbone"]["drop_path"] == 0.1
    overridden = read_recipe(file, split_overrides(["--backbone.drop_path", "0.3"], SECTIONS)[1])
    assert overridden.backbone.build().drop_path == 0.3
    with pytest.raises(OptionError, match=r"drop_path: 1\.5 is out of range"):
        read_recipe(file, split_overrides(["--backbone.drop_path", "1.5"], SECTIONS)[1]).backbone.build()


def test_a_task_added_to_a_bundle_trains_under_it(tmp_path):
    """The bundle does not say it, the recipe that adds to it does; the old task's own modules follow."""
    scenes = garnish.Scenes(2, seed=1)
    old = {"seg": scenes.tasks["seg"]}
    adapt(garnish.backbone("garnish_b0"), garnish.BitFit(), old, garnish.LinearHead()).save(tmp_path / "old")
    added = {"backbone": {"name": "garnish_b0", "drop_path": 0.5}, "adapter": "LoRA", "train": {"steps": 1}}
    recipe = read_recipe(None, {**added, "onto": [str(tmp_path / "old")], "head": "LinearHead"})
    model = build_model(recipe, garnish.Scenes(2, seed=1, tasks=("depth",)))
    assert model.backbone.drop_path == 0.5 and model.frozen_tasks == {"seg"}
    model.train()
    first, second = outputs(model, 0), outputs(model, 1)
    assert tiny.far(first["depth"], second["depth"]) > 1e-4
    assert torch.equal(first["seg"], second["seg"])  # its owner tunes, so that its passes have modules of their own


def test_a_comparison_takes_no_result_from_another_rate(tmp_path, mit_weights):
    plain = conditions(tmp_path, mit_weights).recipe.plain
    keys = []
    for rate in (None, 0.0, 0.2, 0.3):
        named = plain["backbone"] | ({} if rate is None else {"drop_path": rate})
        made = Conditions(read_recipe(None, {**plain, "backbone": named}), conditions(tmp_path, mit_weights).options)
        run = ArmRun(next(iter(made.arms)), ("seg", "depth"), 1e-3, 0)
        keys.append(made.key(run))
        assert made.build(run).backbone.drop_path == (rate or 0.0)
    assert keys[0] == keys[1] and len(set(keys)) == 3


@pytest.mark.parametrize("added", ["BitFit", "FullFineTuning"])
def test_a_frozen_task_is_not_dropped_where_all_that_train_have_modules_of_their_own(added):
    trunk = garnish.backbone(*tiny.BACKBONES["vit"][1:2], options=tiny.BACKBONES["vit"][2], drop_path=0.9)
    model = garnish.adapt(trunk, garnish.LoRA(rank=2), {"depth": garnish.Depth()})
    model.add(registry.build("adapters", added), {"seg": garnish.Semantic(classes=3)}, freeze_others=True)
    model.train()
    x = tiny.pictures()
    assert torch.equal(model(x, ["depth"])["depth"], model(x, ["depth"])["depth"])
    assert not torch.equal(model(x, ["seg"])["seg"], model(x, ["seg"])["seg"])
