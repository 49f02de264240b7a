"""``gn.export(adapters="inputs")``: one graph, and bundles beside it, each equal to its model in the runtime."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import exports
import garnish as gn
import tiny
from garnish.errors import BundleError, OptionError
from garnish.exporting.deployed import Deployed, plain_copy
from garnish.exporting.fed_export import FedGraph, bundle_name, fed_files
from garnish.exporting.fed_graph import misfit
from garnish.exporting.open_sides import open_sides
from garnish.exporting.slots import Fed, own_slots, put
from garnish.page.files import PAGE_FILES
from garnish.runtime.session import Session

onnxscript = pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
TASKS = ("seg", "depth")
#: family → a method of each kind: sums, products, modules beside layers, streams, tuned values, a side network
CASES = {
    "vit": "MTLoRA",
    "dinov2": "Mona",
    "swin": "VMTAdapter",
    "swinv2": "SSF",
    "mit": "Convpass",
    "convnext": "LoRA",
    "cnn": "BitFit",
    "dinov3": "SideTuning",
    "eva": "LoRA",
}
FAST = ("mit", "vit")


def model_of(short: str, method: str, **options: object) -> gn.Model:
    """On the trunk that every model of a family here has."""
    return exports.model(short, gn.registry.build("adapters", method, options), dict.fromkeys(TASKS, gn.LinearHead()))


def test_a_tensor_without_sides_is_given_as_one_number_and_computed_with_as_it_is():
    """onnxruntime's files of adapters know no shape ()."""
    model = model_of("dinov3", "SideTuning")
    slots = own_slots(model)
    gates = [slot for slot in slots if slot.is_scalar]
    assert gates and all(slot.value.shape == (1,) for slot in gates)
    assert {tuple(table[leaf].shape) for slot in gates for table, leaf in slot.places} == {()}
    with put(slots, [slot.value + 1 for slot in slots]):
        for slot in gates:
            (table, leaf) = slot.places[0]
            assert table[leaf].shape == () and table[leaf] == slot.value + 1


@pytest.mark.export
@pytest.mark.parametrize(
    "short", [pytest.param(short, marks=[] if short in FAST else pytest.mark.slow) for short in CASES]
)
def test_a_bundle_beside_a_graph_equals_its_model(short, tmp_path):
    model = model_of(short, CASES[short])
    made = gn.export(model, tmp_path, adapters="inputs")
    (facts,) = made.bundles.values()
    assert set(facts["certificate"]["tasks"]) == set(TASKS)
    pictures = tiny.pictures(2, 75, 133)
    pixels = (pictures * 255).round().to(torch.uint8)
    with torch.inference_mode():
        want = model(pixels)
    found = Session(tmp_path).outputs(pixels.numpy(), "model")
    for task, out in want.items():
        assert np.abs(found[task] - out.numpy()).max() <= 1e-4 * out.abs().max()


@pytest.mark.export
def test_bundles_of_other_ranks_scales_and_classes_share_a_graph(tmp_path):
    first = model_of("mit", "LoRA", rank=2)
    gn.export(first, tmp_path / "out", adapters="inputs")
    graph = (tmp_path / "out" / "model.onnx").read_bytes()
    tasks = {"parts": gn.Semantic(classes=9), "cracks": gn.Saliency()}
    other = gn.adapt(exports.trunk("mit"), gn.LoRA(rank=5, alpha=3), tasks, gn.LinearHead()).eval()
    exports.moved(other)
    files, facts, described = fed_files(
        {"other": plain_copy(other)}, FedGraph.read(tmp_path / "out"), torch.uint8, "fp32", None
    )
    assert "model.onnx" not in files and (tmp_path / "out" / "model.onnx").read_bytes() == graph
    for name, data in files.items():
        (tmp_path / "out" / name).write_bytes(data)
    session = Session(tmp_path / "out")
    assert session.bundles == ("model", "other")
    pixels = (tiny.pictures(1, 97, 64) * 255).round().to(torch.uint8)
    for name, model in (("model", first), ("other", other), ("model", first)):
        with torch.inference_mode():
            want = model(pixels)
        found = session.outputs(pixels.numpy(), name)
        assert list(found) == list(want)
        for task, out in want.items():
            assert found[task].shape == tuple(out.shape)
            assert np.abs(found[task] - out.numpy()).max() <= 1e-4 * out.abs().max()
    assert facts["no_adapter"] == "zeros"
    assert described["other"]["certificate"]["tasks"]["parts"]["equal_labels"] == 1.0


@pytest.mark.parametrize("short", ["vit", "swin", "convnext"])
@pytest.mark.parametrize("method", [name for name in gn.registry.classes("adapters") if name != "Frozen"])
def test_tensors_put_in_the_place_of_a_models_own_act_and_leave_no_trace(short, method):
    """For every method that is found: with its own tensors a module gives its outputs, with others others."""
    try:
        model = plain_copy(model_of(short, method))
    except gn.errors.SiteError as error:
        pytest.skip(str(error))
    slots = own_slots(model)
    deployed, pixels = Deployed(model, list(TASKS)), tiny.pictures(2, 64, 80)
    fed = Fed(deployed, model, slots)
    with torch.inference_mode():
        before = deployed(pixels)
        own = fed(pixels, [slot.value for slot in slots])
        others = fed(pixels, [slot.value + 0.01 for slot in slots])
        after = deployed(pixels)
    for a, b, c, d in zip(before, own, others, after, strict=True):
        assert torch.equal(a, b) and torch.equal(a, d) and not torch.equal(a, c)


def test_open_sides_are_those_that_ranks_and_channels_decide():
    model = plain_copy(model_of("vit", "LoRA"))
    sides = open_sides(model)
    for slot in own_slots(model):
        leaf = slot.name.split(".")[-1]
        if leaf == "lora_a":
            assert sides[slot.name] == {0}
        elif leaf == "lora_b":
            assert sides[slot.name] == {1}
    last = [name for name in sides if name.startswith("heads.")]
    assert last and all(sides[name] == {0} for name in last)
    assert {name.split(".")[1] for name in last} == {"0", "1"}


def test_slots_are_named_without_tasks():
    names = [slot.name for slot in own_slots(plain_copy(model_of("swin", "MTLoRA")))]
    assert len(names) == len(set(names))
    assert not any(task in name.split(".") for name in names for task in TASKS)
    assert {name.split(".")[1] for name in names if name.startswith("adapters.")} == {"0", "1", "2"}


def test_tensors_are_put_back_after_an_error():
    model = plain_copy(model_of("vit", "LoRA"))
    slots = own_slots(model)
    before = {name: tensor.clone() for name, tensor in model.all_tensors().items()}
    with pytest.raises(ZeroDivisionError), put(slots, [torch.zeros_like(slot.value) for slot in slots]):
        raise ZeroDivisionError
    assert all(torch.equal(before[name], tensor) for name, tensor in model.all_tensors().items())


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"a": (3, 4), "b": (5, 3)}, ""),
        ({"a": (3, 4), "b": (5, 2)}, "its b is (5, 2), the graph takes (5, 'r')"),
        ({"a": (3, 5), "b": (5, 3)}, "its a is (3, 5), the graph takes ('r', 4)"),
        ({"a": (3, 4, 1), "b": (5, 3)}, "its a is (3, 4, 1), the graph takes ('r', 4)"),
        ({"a": (3, 4)}, "it has no b"),
    ],
)
def test_tensors_that_a_graph_does_not_take_are_named(shapes, said):
    inputs = {"a": {"dtype": "float32", "shape": ["r", 4]}, "b": {"dtype": "float32", "shape": [5, "r"]}}
    assert misfit(inputs, shapes) == said


def test_what_cannot_be_an_input_is_refused(tmp_path):
    with pytest.raises(OptionError, match="all of the trunk is trained"):
        gn.export(model_of("vit", "FullFineTuning"), tmp_path / "a", adapters="inputs")
    with pytest.raises(OptionError, match="leave tasks out"):
        gn.export(model_of("vit", "LoRA"), tmp_path / "a", adapters="inputs", tasks=["seg"])
    with pytest.raises(OptionError, match="leave to out"):
        gn.export(model_of("vit", "LoRA"), tmp_path / "a", adapters="inputs", to="torch")
    assert not (tmp_path / "a").exists()


@pytest.mark.export
def test_a_bundle_of_another_graph_is_refused_and_nothing_is_written(tmp_path):
    out = tmp_path / "out"
    gn.export(model_of("mit", "LoRA"), out, adapters="inputs")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    refused = [
        (model_of("mit", "AdaptFormer"), "is not of this graph"),
        (exports.model("mit", gn.LoRA(rank=2), {"seg": gn.LinearHead()}), "has 1 tasks, the graph 2 outputs"),
        (model_of("vit", "LoRA"), "belongs to another trunk"),
    ]
    for model, said in refused:
        with pytest.raises(BundleError, match=said):
            gn.export(model, out, adapters="inputs")
    with pytest.raises(BundleError, match="precision fp32, not uint8 and fp16"):
        gn.export(model_of("mit", "LoRA"), out, adapters="inputs", precision="fp16")
    with pytest.raises(BundleError, match='adapters="inputs", not "merged"'):
        gn.export(model_of("mit", "LoRA"), out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    json.loads((out / "model.json").read_text())


@pytest.mark.slow
@pytest.mark.export
def test_the_least_side_is_found_in_float32_whatever_the_trunk_is_stored_in(tmp_path):
    model = model_of("mit", "LoRA")
    full = gn.export(model, tmp_path / "fp32", adapters="inputs")
    half = gn.export(model, tmp_path / "fp16", adapters="inputs", precision="fp16")
    assert half.facts["image"] == full.facts["image"] == {"dtype": "uint8", "least": 1}
    assert half.facts["precision"] == "fp16" and half.bytes < full.bytes
    (facts,) = half.bundles.values()
    assert facts["graph"] == half.facts["sha256"] != full.facts["sha256"]
    assert facts["certificate"]["tasks"]["seg"]["equal_labels"] >= 0.995


def test_a_bundle_is_named_as_its_folder_or_its_run():
    assert bundle_name("runs/cracks/best") == "cracks"
    assert bundle_name("bundles/seg.v2") == "seg.v2"
    of_the_page = [f"bundles/{name.removesuffix('.json')}" for name in PAGE_FILES if name.endswith(".json")]
    assert of_the_page
    for odd in ("runs/my bundle", "bundles/export", "bundles/Export", "/", *of_the_page):
        with pytest.raises(OptionError, match="no plain name"):
            bundle_name(odd)


def test_bundles_of_one_name_are_refused_before_they_are_read(tmp_path):
    for other in ("runs/a/cracks", "runs/a/Cracks"):
        with pytest.raises(OptionError, match="would both be named"):
            gn.export(["runs/cracks/best", other], tmp_path / "out", adapters="inputs")
