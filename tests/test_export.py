"""``garnish.export``: what is written, what it says of itself, how it is checked, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import exports
import garnish as gn
import tiny
from garnish.cli import main
from garnish.errors import BundleError, GarnishError, MissingExtraError, OptionError
from garnish.exporting import export as module
from garnish.exporting.graph import least_side, onnx_bytes, to_onnx, traced
from garnish.exporting.running import OnnxRunner
from garnish.files.checksums import check_sum
from garnish.runtime import Session
from garnish.runtime.manifest import read_manifest

pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def model():
    return exports.model("cnn", gn.Partial(), {"seg": gn.LinearHead(), "depth": gn.LinearHead()})


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    gn.export(model, out)
    return out


def picture(height: int = 45, width: int = 61) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- what is written --------------------------------------------------------------------------------------------


def test_the_folder_says_what_it_is(model, folder):
    assert sorted(file.name for file in folder.iterdir()) == ["SHA256SUMS", "export.json", "model.onnx"]
    for name in ("export.json", "model.onnx"):
        check_sum(folder / name, (folder / name).read_bytes())
    facts = read_manifest(folder)
    assert (facts["form"], facts["to"], facts["precision"], facts["opset"]) == ("merged", "onnx", "fp32", 20)
    assert facts["backbone"]["fingerprint"] == model.backbone.fingerprint()
    assert facts["image"] == {"dtype": "uint8", "least": 1}
    assert facts["outputs"] == ["seg", "depth"]
    assert facts["tasks"]["depth"]["decoding"]["options"]["max_metres"] == 10.0
    assert facts["tasks"]["seg"]["channels"] == 5
    found = facts["certificate"]
    sizes = {tuple(size) for size in found["sizes"]}
    assert len(sizes) >= 8 and {n for n, _, _ in sizes} >= {1, 3}
    assert any(h % 2 and w % 2 for _, h, w in sizes)
    assert found["tasks"]["seg"]["equal_labels"] >= 0.999
    assert 0 < found["tasks"]["depth"]["relative"] < 1e-4


def test_the_graph_names_its_sides_and_weights_and_no_path(model, folder):
    graph = onnx.load(folder / "model.onnx").graph
    sides = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert (graph.input[0].name, sides) == ("image", ["N", 3, "H", "W"])
    assert [d.dim_param for d in graph.output[0].type.tensor_type.shape.dim] == ["N", "", "H", "W"]
    assert not any(node.doc_string or node.metadata_props for node in graph.node)
    assert str(Path(gn.__file__).parent).encode() not in (folder / "model.onnx").read_bytes()
    names = {tensor.name for tensor in graph.initializer}
    assert any(name in names for name in model.backbone.frozen_tensors())
    assert "heads.seg.projections.0.weight" in names


def test_the_runtime_predicts_what_the_model_does(model, folder):
    want, got = model.predict(picture()), Session(folder, threads=1).predict(picture())
    assert np.array_equal(got["seg"], want["seg"].numpy())
    assert np.allclose(got["depth"], want["depth"].numpy(), atol=1e-4)


def test_a_program_of_torch_and_floats(tmp_path):
    model = exports.model("cnn", gn.SSF(), {"depth": gn.LinearHead()})
    made = gn.export(model, tmp_path / "out", to="torch", input="float")
    assert made.files == ("model.pt2", "export.json", "SHA256SUMS")
    assert made.facts["image"] == {"dtype": "float32", "least": least_side(model.backbone)}
    assert "opset" not in made.facts and "onnx" not in made.facts["versions"]
    run = torch.export.load(tmp_path / "out" / "model.pt2").module()
    images = torch.rand(3, 3, 71, 40)
    with torch.no_grad():
        assert tiny.far(run(images)[0], model(images)["depth"]) < 1e-5


def test_an_export_replaces_an_earlier_one_and_nothing_else(model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    gn.export(model, out, to="torch")
    monkeypatch.setattr(module, "_made", lambda *_: (b"graph", 1, {"sizes": [], "tasks": {}}))
    gn.export(model, out)
    assert sorted(file.name for file in out.iterdir()) == ["SHA256SUMS", "export.json", "model.onnx"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"holds notes\.txt beside an export"):
        gn.export(model, out)
    with pytest.raises(BundleError, match="was not written by export"):
        gn.export(model, tmp_path)


def test_names_that_the_graph_has_itself():
    class Doubled(nn.Module):
        def forward(self, x):
            return (torch.relu(x.float()) + 1,), torch.relu(x.float()) * 2

    trunk = tiny.bare_trunk("cnn")
    program = traced(Doubled(), trunk, torch.uint8)
    for names in (["relu", "add"], ["mul", "image_output"]):
        data = onnx_bytes(to_onnx(program, names, {}))
        onnx.checker.check_model(onnx.load_from_string(data))
        graph = onnx.load_from_string(data).graph
        assert [value.name for value in graph.output] == names
        images = torch.randint(0, 256, (2, 3, 70, 90), dtype=torch.uint8)
        plus, twice = OnnxRunner(data)(images)
        assert torch.equal(plus, images + 1.0) and torch.equal(twice, images * 2.0)


# ---- on pictures with labels ------------------------------------------------------------------------------------


def test_both_are_measured_on_the_users_pictures(tmp_path):
    data = gn.Scenes(3, size=(50, 67), seed=3, tasks=("seg", "normals"))
    torch.manual_seed(0)
    heads = dict.fromkeys(data.tasks, gn.LinearHead())
    model = gn.adapt(exports.trunk("cnn"), gn.Frozen(), data.tasks, heads)
    exports.moved(model)
    found = gn.export(model.eval(), tmp_path / "out", data=data).certificate["data"]
    assert found["pictures"] == 3
    want = gn.evaluate(model, data)
    for task, values in want.items():
        assert found["before"][task] == pytest.approx(values, nan_ok=True, rel=1e-6)
        assert found["after"][task] == pytest.approx(values, nan_ok=True, rel=1e-3, abs=1e-4)
    assert found["tasks"]["seg"]["pixels"] == 3 * 50 * 67
    assert found["tasks"]["normals"]["unit"] == "degrees"


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"to": "torch", "precision": "int8"}, 'precision="int8" is of onnxruntime'),
        ({"adapters": "inputs", "tasks": ["seg"]}, "has an output for every task; leave tasks out"),
        ({"tasks": ["sag"]}, "unknown task 'sag'; did you mean 'seg'"),
        ({"tasks": []}, "there is no task to export"),
        ({"to": "openvino"}, "to"),
        ({"weights": "trunk.safetensors"}, "a model has its weights"),
    ],
)
def test_options_that_do_not_go_together(model, tmp_path, options, line):
    with pytest.raises(OptionError, match=line):
        gn.export(model, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_told_before_anything_is_traced(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(module, "_made", None)
    for out, says in (("file/out", "file is a file; choose a folder"), ("file", "was not written by export")):
        with pytest.raises(BundleError, match=says):
            gn.export(model, tmp_path / out)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(BundleError, match=f"{tmp_path} cannot be written to"):
        gn.export(model, tmp_path / "some" / "out")


def test_a_file_beyond_a_limit_leaves_nothing_behind(model, tmp_path, monkeypatch):
    fold = module.folded_copy

    def off(reference, tasks):
        made = fold(reference, tasks)
        with torch.no_grad():
            next(iter(made.backbone.frozen_tensors().values())).mul_(1.01)
        return made

    monkeypatch.setattr(module, "folded_copy", off)
    with pytest.raises(
        GarnishError, match=r"'depth' differs by .* more than 1e-04; .* does not explain it.*; nothing was written"
    ):
        gn.export(model, tmp_path / "out", to="torch")
    assert not list(tmp_path.iterdir())


def test_without_the_extra(model, tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else there(name))
    with pytest.raises(MissingExtraError, match=r"needs onnxscript; pip install 'garnish\[onnx\]'"):
        gn.export(model, tmp_path / "out")


def test_a_head_that_looks_at_sizes_is_refused_with_the_reason(model, tmp_path):
    class Picky(nn.Module):
        def forward(self, maps):
            return maps[0] if maps[0].shape[2] > 30 else maps[0] * 2

    broken = exports.model("cnn", gn.Frozen(), {"seg": gn.LinearHead()})
    key = next(iter(broken.decoders._made))
    broken.decoders._made[key] = Picky()
    object.__setattr__(broken.decoders.by_task["seg"], "module", broken.decoders._made[key])
    with pytest.raises(GarnishError, match="cannot be traced"):
        gn.export(broken, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_refused(tmp_path):
    broken = exports.model("cnn", gn.Frozen(), {"seg": gn.LinearHead()})
    with torch.no_grad():
        next(iter(broken.head_tensors("seg").values())).fill_(float("nan"))
    with pytest.raises(GarnishError, match="not finite"):
        gn.export(broken, tmp_path / "out")


def test_a_compiled_model_is_refused(tmp_path):
    model = exports.model("cnn", gn.Frozen(), {"seg": gn.LinearHead()})
    model.compile()
    with pytest.raises(OptionError, match="is compiled"):
        gn.export(model, tmp_path / "out")


def test_weights_that_may_not_be_sold_are_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_made", lambda *_: (b"graph", 1, {"sizes": [], "tasks": {}}))
    model = exports.model("cnn", gn.Frozen(), {"seg": gn.LinearHead()})
    model.backbone.licence = "CC BY-NC 4.0"
    made = gn.export(model, tmp_path / "out")
    assert "non-commercial (CC BY-NC 4.0), and so is the export" in caplog.text
    assert made.facts["backbone"]["non_commercial"] is True


# ---- at the command line ----------------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), gn.Scenes(1).tasks)
    model.save(tmp_path / "bundle")
    words = ["export", str(tmp_path / "bundle"), "--out", str(tmp_path / "out"), "--to", "torch", "--tasks", "seg"]
    assert main([*words, "--data", "scenes", "--data.test", "2"]) == 0
    told = capsys.readouterr().out
    assert "model.pt2, export.json, SHA256SUMS" in told
    assert "equal labels" in told and "2 pictures" in told and "exported" in told
    assert json.loads((tmp_path / "out" / "export.json").read_text("utf-8"))["tasks"].keys() == {"seg"}
    size = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert f"SHA256SUMS; {size / 1e6:.1f} MB\n" in told
    for option, value in (("--limit", "3"), ("--split", "val"), ("--split", "test"), ("--every", "2")):
        assert main([*words[:4], option, value]) == 2
        assert "--data, which is missing" in capsys.readouterr().err
