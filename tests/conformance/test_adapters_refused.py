"""Which method works on which family, and that what cannot work is refused when the plan is made."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import garnish
import tiny
from conformance.cases import FAMILIES, trains
from garnish import registry
from garnish.cli import main
from garnish.engine.adapter import Adapter, Method, Plan, select_layers
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError, SiteError
from garnish.planning.candidates import candidates

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
CLASSES = registry.classes("adapters")

#: a refusal says what is needed, what there is, or what to do
REMEDY = re.compile(r"needs \(.+\); use |; (use|choose|set) |it has them at |layers: ")


@pytest.mark.parametrize("short", FAMILIES)
@pytest.mark.parametrize("case", list(tiny.method_cases()))
def test_what_does_not_fit_is_refused_in_that_line_and_all_else_works(case, short):
    """No table: a method says it, and adapting and ``garnish plan`` say the same; what fits is run by the suite."""
    methods, lines = tiny.methods(case, per_task=False), tiny.refusals(case, short)
    by_hand, refused = candidates(tiny.bare_trunk(short), 1, [case]) if case in CLASSES else ([], [])
    if not lines:
        model = tiny.model(short, methods, own=False)
        assert model.backbone.is_adapted == trains(case)
        assert by_hand or case not in CLASSES
        return
    with pytest.raises(SiteError) as caught:
        tiny.model(short, methods)
    assert str(caught.value) == lines[0]
    one_line(lines[0], tiny.BACKBONES[short][1])
    assert REMEDY.search(lines[0]) and re.split(r"\W", lines[0])[0] in {type(m).__name__ for m in methods}
    # at any size, and for any of the layers
    assert not by_hand and {r.reason for r in refused} == ({lines[0]} if case in CLASSES else set())


def test_every_method_fits_some_family_and_every_family_takes_some_method():
    fitting = {(name, short) for name in CLASSES for short in FAMILIES if not tiny.refusals(name, short)}
    assert {name for name, _ in fitting} == set(CLASSES)
    for short in FAMILIES:
        assert any(trains(name) for name, at in fitting if at == short), short


def test_the_page_says_which_method_fits_which_family():
    """docs/methods.md is made by tools/generate_docs.py and read by people: what it says changes in plain sight."""
    rows = re.findall(r"^\| (\w+) \|[^|]+\|[^|]+\|[^|]+\| ([\w, ]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    trunks = {tiny.BACKBONES[short][0]: short for short in FAMILIES}
    families = {f: s for f, s in trunks.items() if registry.find("backbones", f).__module__.startswith("garnish.")}
    ours = {n for n, cls in CLASSES.items() if cls.__module__.startswith("garnish.")}
    assert {name for name, _ in rows} - {"method"} == ours
    for name, where in rows[1:]:
        told = {f for f in families if f in where.split(", ") or where == "all"}
        fits = {f for f, short in families.items() if not tiny.refusals(name, short)}
        assert told == fits, name


def test_the_command_line_says_why_in_the_same_line(capsys):
    _, name, options = tiny.BACKBONES["cnn"]
    assert not options
    words = ["plan", name, "--tasks", "depth=Depth", "--size", "64,64", "--batch-size", "1", "--predictions", "1"]
    assert main([*words, "--methods", "Frozen,VPT", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["refused"]["VPT prompts=5"] == tiny.refusals("VPT", "cnn")[0]


def test_asking_changes_nothing():
    trunk = tiny.backbone("swin")
    before = [tensor.clone() for tensor in trunk.frozen_tensors().values()]
    state = torch.get_rng_state()
    for name in CLASSES:
        assert tiny.example("adapters", name).fits(trunk) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert not trunk.is_adapted and len(trunk.owners) == 0
    assert all(torch.equal(a, b) for a, b in zip(trunk.frozen_tensors().values(), before, strict=True))


@dataclass(frozen=True, kw_only=True)
class Wrong(Method):
    """Plans what a trunk has not."""

    what: str = "empty"

    def plan(self, backbone: Trunk) -> Plan:
        if self.what == "option":
            raise OptionError("Wrong.what: option; use another")
        nowhere = {"stages.9.nowhere": Adapter()}
        return {
            "site": Plan(nowhere),
            "own": Plan(own=lambda: nowhere),
            "tuned": Plan(tuned=("stages.9.nowhere.weight",)),
            "buffer": Plan(tuned=tuple(n for n in backbone.frozen_tensors() if n.endswith("running_mean"))[:1]),
            "empty": Plan(),
        }[self.what]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("site", "has no site 'stages.9.nowhere'"),
        ("own", "has no site 'stages.9.nowhere'"),
        ("tuned", "has no parameter 'stages.9.nowhere.weight'"),
        ("buffer", "has no parameter 'stem.body.bn1.running_mean'"),
        ("empty", "has no place for it; choose another method or backbone"),
        ("option", "Wrong.what"),
    ],
)
def test_fits_says_whatever_adapting_would(what, said):
    trunk = tiny.backbone("cnn")
    line = Wrong(what=what).fits(trunk)
    assert line is not None and said in line
    with pytest.raises((SiteError, OptionError), match=re.escape(line)) as caught:
        tiny.adapt(trunk, Wrong(what=what), {"seg": garnish.Semantic(classes=2)})
    assert str(caught.value) == line


def one_line(error: Exception | str, *named: Any) -> None:
    """One line, short enough to read, that names what it is about."""
    assert "\n" not in str(error) and len(str(error)) < 250
    for value in named:
        assert str(value) in str(error)


def test_a_layer_of_a_type_that_a_method_cannot_adapt_is_named():
    trunk = tiny.backbone("mit")
    assert select_layers(trunk, ("fc1",), (), "Mine", only=(nn.Linear,))
    with pytest.raises(SiteError, match=r"Mine: stages\.0\S+mlp\.dw in mit_b0 is a Conv2d; choose Linear") as caught:
        select_layers(trunk, ("fc1", "dw"), (), "Mine", only=(nn.Linear,))
    one_line(caught.value)


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
        ({"bottleneck": 0}, None, "bottleneck: expected a whole number from 1 to 65,536, got int 0"),
        ({"dropout": 1.0}, None, r"dropout: 1.0 is outside \[0, 1\); use 0 to 0.9"),
    ],
    "BitFit": [],
    "Convpass": [
        ({"bottleneck": 0}, None, "bottleneck: expected a whole number from 1 to 4,096, got int 0"),
        ({"scale": 0.0}, None, "scale: with 0 nothing would be learned; set a finite value other than 0"),
        ({"dropout": -0.5}, None, r"dropout: -0.5 is outside \[0, 1\); use 0 to 0.9"),
    ],
    "Extras": [],
    "Frozen": [],
    "FullFineTuning": [],
    "Houlsby": [
        ({"reduction": 25.0}, "swin", "width 24 / reduction 25.0 is below 1; use 24 or less"),
        ({"reduction": 0.0}, None, "reduction: expected a number from 0.1 to 65,536, got float 0.0"),
        ({"reduction": float("inf")}, None, "reduction: expected a number from 0.1 to 65,536, got float inf"),
        ({"bottleneck": -2}, None, "bottleneck: expected a whole number from 1 to 65,536 or None, got int -2"),
    ],
    "LoRA": [
        ({"rank": 25}, "swin", "rank 25 exceeds the layer's 24; use rank 24 or less"),
        ({"rank": 0}, None, "rank: expected a whole number from 1 to 65,536, got int 0"),
        ({"rank": 10, "layers": ["mlp.dw"]}, "mit", "rank 10 is no multiple of the convolution's 64 groups; use rank"),
        ({"layers": ["qvk"]}, "swin", "no layer 'qvk' in .*attn.qkv"),
        ({"dora": True, "dropout": 0.1}, None, "dora: .*dropout .* use 0"),
    ],
    "MTLoRA": [
        ({"rank": 32}, "swin", "rank 32 exceeds the layer's 24; use rank 24 or less"),
        ({"task_rank": 100}, "swin", "rank 100 exceeds the layer's 24; use rank 24 or less"),
        ({"task_rank": 0}, None, "task_rank: expected a whole number from 1 to 65,536, got int 0"),
    ],
    "Mona": [
        ({"bottleneck": 0}, None, "bottleneck: expected a whole number from 1 to 4,096, got int 0"),
        ({"dropout": 2.0}, None, r"dropout: 2.0 is outside \[0, 1\); use 0 to 0.9"),
    ],
    "NormTuning": [({"places": ["mpl"]}, "swin", "no norm at 'mpl'; it has them at .*mlp")],
    "Partial": [
        ({"blocks": 9}, "swin", "has 8 blocks, not 9; use 8 or less"),
        ({"blocks": 0}, None, "blocks: expected a whole number from 1 to 4,096, got int 0"),
    ],
    "Pfeiffer": [({"reduction": 49.0}, "dinov2", "width 48 / reduction 49.0 is below 1; use 48 or less")],
    "PolyhistorLite": [
        ({"reduction": 25.0}, "swin", "width 24 / reduction 25.0 is below 1; use 24 or less"),
        ({"rank": 0}, None, "rank: expected a whole number from 1 to 1,024, got int 0"),
    ],
    "SSF": [],
    "SideTuning": [
        ({"reduction": 30.0}, "swin", "width 24 / reduction 30.0 is below 1; use 24 or less"),
        ({"mlp_ratio": 0.0}, None, "mlp_ratio: expected a number above 0 to 64, got float 0.0"),
    ],
    "VMTAdapter": [
        ({"reduction": 25.0}, "swin", "width 24 / reduction 25.0 is below 1; use 24 or less"),
        ({"reduction": -1.0}, None, "reduction: expected a number from 0.1 to 65,536, got float -1.0"),
    ],
    "VMTAdapterLite": [({"reduction": 25.0}, "swin", "width 24 / reduction 25.0 is below 1; use 24 or less")],
    "VPT": [
        ({"prompts": 65}, "dinov2", "prompts: 65 are more than four times .*; use 64 or less"),
        ({"prompts": 197}, "swin", "prompts: 197 are more than four times .*; use 196 or less"),
        ({"prompts": 0}, None, "prompts: expected a whole number from 1 to 4,096, got int 0"),
    ],
}


def numbers(name: str) -> list[tuple[str, float]]:
    """(option, a value that it cannot have) of each that is a number above 0 by default."""
    options = registry.options_of(tiny.example("adapters", name)).items()
    chosen = [(n, v) for n, v in options if isinstance(v, int | float) and not isinstance(v, bool) and v > 0]
    return [(n, bad) for n, v in chosen for bad in ([-1] if isinstance(v, int) else [float("nan"), float("inf")])]


@pytest.mark.parametrize(("name", "option", "bad"), [(n, *pair) for n in CLASSES for pair in numbers(n)])
def test_a_number_that_cannot_be_is_refused_when_it_is_given(name, option, bad):
    """Of every method there is; what exactly is said of ours stands in the table above."""
    with pytest.raises(OptionError, match=rf"{name}\.{option}") as caught:
        registry.build("adapters", name, {option: bad})
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
