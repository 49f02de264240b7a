"""Which method works on which family, and that what cannot work is refused when the plan is made."""

from __future__ import annotations

import re
from typing import Any

import pytest

import garnish
import tiny
from conformance.cases import FAMILIES
from garnish import registry
from garnish.errors import OptionError, SiteError

#: what the message of each refused pair must say is needed there, or may be used in its place
NEEDS = {
    "VPT": "prompt tokens; use a plain ViT or a Swin",
    "MTLoRA": "no linear layers in its blocks; use LoRA",
    "Houlsby": r"needs \(attention or MLP\)",
    "Pfeiffer": r"needs \(MLPs\)",
    "AdaptFormer": r"needs \(MLP branches\)",
    "VMTAdapter": r"needs \(MLP branches\)",
    "VMTAdapterLite": r"needs \(MLP branches\)",
    "PolyhistorLite": r"needs \(MLP branches\)",
    "Convpass": r"needs \(residual branches with a norm\)",
    "Mona": r"needs \(residuals\)",
    "NormTuning": "it has them at",
    "LoRA": "layers: ",
    tiny.EXAMPLE_OF_THE_PAGE: "has no place for it",
}


@pytest.mark.parametrize("short", FAMILIES)
@pytest.mark.parametrize("case", list(tiny.method_cases()))
def test_works_or_is_refused_as_the_table_says(case, short):
    trunk = tiny.backbone(short)
    methods = tiny.methods(case, per_task=False)
    if not tiny.is_refused(case, short):
        for method in methods:
            assert method.may_be_empty or not method.plan(trunk).is_empty
        return
    with pytest.raises(SiteError) as caught:
        tiny.model(short, methods)
    assert any(re.search(NEEDS.get(type(m).__name__, "nothing"), str(caught.value)) for m in methods), caught.value
    one_line(caught.value, tiny.BACKBONES[short][1])


def one_line(error: Exception, *named: Any) -> None:
    """One line, short enough to read, that names what it is about."""
    assert "\n" not in str(error) and len(str(error)) < 250
    for value in named:
        assert str(value) in str(error)


def test_no_pair_of_the_table_is_forgotten():
    assert set(tiny.REFUSED) <= set(FAMILIES)
    for cases in tiny.REFUSED.values():
        assert cases <= {*tiny.method_cases(), tiny.EXAMPLE_OF_THE_PAGE}


def test_side_networks_read_no_merged_maps():
    trunk = garnish.backbone("swin_tiny_patch4_window7_224", options=tiny.BACKBONES["swin"][2], taps="merged")
    with pytest.raises(SiteError, match=r'SideTuning: .* build it with taps="stage"') as caught:
        garnish.SideTuning().plan(trunk)
    one_line(caught.value, "swin_tiny_patch4_window7_224")


def test_maps_between_stages_are_those_of_a_layer_that_merges():
    for family in ("cnn", "dinov2"):
        _, name, options = tiny.BACKBONES[family]
        with pytest.raises(OptionError, match=r'merge.*use taps="stage"') as caught:
            garnish.backbone(name, options=options, taps="merged")
        one_line(caught.value, name)


#: method → (options, family or None where the options alone are wrong, what is said: the value and the nearest that
#: would work); on the tiny trunks stages of Swin are 24, 48, 96, 192 wide, of DINOv2 48 with 16 patches
BAD: dict[str, list[tuple[dict[str, Any], str | None, str]]] = {
    "AdaptFormer": [
        ({"bottleneck": 0}, None, "bottleneck: 0 is below 1; use 1 or more"),
        ({"dropout": 1.0}, None, r"dropout: 1.0 is outside \[0, 1\); use 0 to 0.9"),
    ],
    "BitFit": [],
    "Convpass": [
        ({"bottleneck": 0}, None, "bottleneck: 0 is below 1; use 1 or more"),
        ({"scale": 0.0}, None, "scale: with 0 nothing would be learned; set a finite value other than 0"),
        ({"dropout": -0.5}, None, r"dropout: -0.5 is outside \[0, 1\); use 0 to 0.9"),
    ],
    "Extras": [],
    "Frozen": [],
    "FullFineTuning": [],
    "Houlsby": [
        ({"reduction": 25.0}, "swin", "width 24 / reduction 25.0 is below 1; use 24 or less"),
        ({"reduction": 0.0}, None, "reduction: 0.0 is not positive; use 1 or more"),
        ({"bottleneck": -2}, None, "bottleneck: -2 is below 1; use 1 or more"),
    ],
    "LoRA": [
        ({"rank": 25}, "swin", "rank 25 exceeds the layer's 24; use rank 24 or less"),
        ({"rank": 0}, None, "rank: 0 is below 1; use 1 or more"),
        ({"rank": 10, "layers": ["mlp.dw"]}, "mit", "rank 10 is no multiple of the convolution's 64 groups; use rank"),
        ({"layers": ["qvk"]}, "swin", "no layer 'qvk' in .*attn.qkv"),
        ({"dora": True, "dropout": 0.1}, None, "dora: .*dropout .* use 0"),
    ],
    "MTLoRA": [
        ({"rank": 32}, "swin", "rank 32 exceeds the layer's 24; use rank 24 or less"),
        ({"task_rank": 100}, "swin", "rank 100 exceeds the layer's 24; use rank 24 or less"),
        ({"task_rank": 0}, None, "task_rank: 0 is below 1; use 1 or more"),
    ],
    "Mona": [
        ({"bottleneck": 0}, None, "bottleneck: 0 is below 1; use 1 or more"),
        ({"dropout": 2.0}, None, r"dropout: 2.0 is outside \[0, 1\); use 0 to 0.9"),
    ],
    "NormTuning": [({"places": ["mpl"]}, "swin", "no norm at 'mpl'; it has them at .*mlp")],
    "Partial": [
        ({"blocks": 9}, "swin", "has 8 blocks, not 9; use 8 or less"),
        ({"blocks": 0}, None, "blocks: 0 is below 1; use 1 or more"),
    ],
    "Pfeiffer": [({"reduction": 49.0}, "dinov2", "width 48 / reduction 49.0 is below 1; use 48 or less")],
    "PolyhistorLite": [
        ({"reduction": 25.0}, "swin", "width 24 / reduction 25.0 is below 1; use 24 or less"),
        ({"rank": 0}, None, "rank: 0 is below 1; use 1 or more"),
    ],
    "SSF": [],
    "SideTuning": [
        ({"reduction": 30.0}, "swin", "width 24 / reduction 30.0 is below 1; use 24 or less"),
        ({"mlp_ratio": 0.0}, None, "mlp_ratio: 0.0 is not positive; use 1 or more"),
    ],
    "VMTAdapter": [
        ({"reduction": 25.0}, "swin", "width 24 / reduction 25.0 is below 1; use 24 or less"),
        ({"reduction": -1.0}, None, "reduction: -1.0 is not positive; use 1 or more"),
    ],
    "VMTAdapterLite": [({"reduction": 25.0}, "swin", "width 24 / reduction 25.0 is below 1; use 24 or less")],
    "VPT": [
        ({"prompts": 65}, "dinov2", "prompts: 65 are more than four times .*; use 64 or less"),
        ({"prompts": 197}, "swin", "prompts: 197 are more than four times .*; use 196 or less"),
        ({"prompts": 0}, None, "prompts: 0 is below 1; use 1 or more"),
    ],
}


def test_every_method_of_ours_is_asked_about_its_bad_options():
    ours = {n for n, cls in registry.classes("adapters").items() if cls.__module__.startswith("garnish.")}
    assert set(BAD) == ours
    without = {name for name, cases in BAD.items() if not cases}
    for name in without:  # nothing but switches
        assert all(isinstance(v, bool) for v in registry.options_of(tiny.example("adapters", name)).values()), name


@pytest.mark.parametrize(
    ("name", "options", "short", "said"), [(name, *case) for name, cases in BAD.items() for case in cases]
)
def test_bad_options_fail_when_the_plan_is_made(name, options, short, said):
    if short is None:
        with pytest.raises(OptionError, match=rf"{name}\.{said}") as caught:
            registry.build("adapters", name, options)
    else:
        method = registry.build("adapters", name, options)  # right in itself
        with pytest.raises(SiteError, match=f"{name}.*{said}") as caught:
            method.plan(tiny.backbone(short))
    one_line(caught.value)


def test_polyhistor_needs_widths_that_are_multiples():
    trunk = garnish.backbone("mit_b0", options={**tiny.BACKBONES["mit"][2], "embed_dims": [16, 24, 32, 48]})
    with pytest.raises(
        SiteError, match=r"PolyhistorLite at .*: width 24 is no multiple of the first stage's 16"
    ) as caught:
        garnish.PolyhistorLite().plan(trunk)
    one_line(caught.value)


@pytest.mark.parametrize(
    "method", [garnish.LoRA(rank=2), garnish.MTLoRA(), garnish.SideTuning(per_task=True)], ids=repr
)
@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ({"seg": garnish.LinearHead()}, "head: task 'depth' has none; give one for each of seg, depth"),
        (
            {"seg": garnish.LinearHead(), "depht": garnish.LinearHead()},
            "head: there is no task 'depht'; tasks: seg, depth",
        ),
    ],
)
def test_a_task_that_no_head_serves_is_named(method, heads, said):
    specs = {"seg": garnish.Semantic(classes=3), "depth": garnish.Depth()}
    trunk = tiny.backbone("swin")
    with pytest.raises(OptionError, match=said) as caught:
        garnish.adapt(trunk, method, specs, heads)
    one_line(caught.value)
    assert not trunk.is_adapted
