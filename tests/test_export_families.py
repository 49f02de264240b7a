"""Every family with every kind of head as an ONNX file, against the model at sizes that were not the example's.

:func:`garnish.export` itself compares the file with the model and refuses it; the tests compare once more, at sizes of
their own, and without its code.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import exports
import garnish as gn
import tiny
from garnish import registry
from garnish.model.model import Model

pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
pytestmark = pytest.mark.export

#: one picture and three, odd sides, a side of one cell, above and below what windows and tables of positions are for
SIZES = [(1, 75, 47), (3, 96, 128), (2, 7, 150), (1, 260, 35)]


def session(folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def pictures(count: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(height)).byte()


def check(model: Model, folder: Path) -> onnx.ModelProto:
    """The file of a folder gives what the model gives in float64, to about its own rounding; returns its graph."""
    run, exact = session(folder), copy.deepcopy(model).double()
    assert [value.name for value in run.get_outputs()] == list(model.tasks)
    for size in SIZES:
        images = pictures(*size)
        with torch.no_grad():
            rounded, want = model(images), exact(images)
        for task, got in zip(model.tasks, run.run(None, {"image": images.numpy()}), strict=True):
            assert got.dtype == np.float32
            assert got.shape == tuple(want[task].shape)
            own = tiny.far(rounded[task], want[task])
            assert tiny.far(torch.from_numpy(got), want[task]) < 1e-5 + 4 * own, (task, size, own)
    graph = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(graph)
    for node in graph.graph.node:  # some runtimes compute an antialiased resize without it, and do not say so
        assert node.op_type != "Resize" or not any(a.name == "antialias" and a.i for a in node.attribute)
    return graph


def kinds(graph: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


#: family → its head in the fast suite: each family once, and each head on maps of one stride and on a pyramid
FAST = {
    "vit": "DeMT",
    "dinov2": "SegFormerHead",
    "dinov3": "SharedBaseHead",
    "eva": "LinearHead",
    "mit": "SegFormerHead",
    "swin": "LinearHead",
    "swinv2": "SharedBaseHead",
    "convnext": "DeMT",
    "cnn": "LinearHead",
}


@pytest.mark.parametrize(
    "short", [pytest.param(s, marks=[pytest.mark.slow] if s == "eva" else []) for s in exports.TRUNKS]
)
def test_every_family(short, tmp_path):
    head = tiny.example("heads", FAST[short])
    tasks = ("seg",) if FAST[short] == "DeMT" else ("seg", "depth")  # its sampling in plain operations is long
    model = exports.model(short, gn.LoRA(rank=2), dict.fromkeys(tasks, head))
    made = gn.export(model, tmp_path / "out")
    assert made.facts["image"]["least"] == 1
    found = kinds(check(model, tmp_path / "out"))
    assert not {"If", "Loop", "Scan"} & found
    if short != "cnn":
        assert {"LayerNormalization", "Gelu"} - found <= ({"Gelu"} if short == "eva" else set())  # it gates by SiLU


@pytest.mark.slow
@pytest.mark.parametrize("short", exports.TRUNKS)
def test_every_family_with_every_kind_of_head(short, tmp_path):
    """Four heads in one graph."""
    model = exports.model(short, gn.LoRA(rank=2))
    gn.export(model, tmp_path / "out")
    check(model, tmp_path / "out")


PRODUCT = [(short, head) for short in exports.TRUNKS for head in registry.classes("heads")]


@pytest.mark.slow
@pytest.mark.parametrize(("short", "head"), PRODUCT, ids=["-".join(pair) for pair in PRODUCT])
def test_every_family_with_every_head(short, head, tmp_path):
    model = exports.model(short, gn.LoRA(rank=2), dict.fromkeys(("seg", "depth"), tiny.example("heads", head)))
    gn.export(model, tmp_path / "out")
    check(model, tmp_path / "out")


METHODS = [case for case in tiny.method_cases() if not case.startswith("Frozen")]


@pytest.mark.slow
@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "each"])
@pytest.mark.parametrize("case", METHODS)
@pytest.mark.parametrize("short", ["vit", "swin"])
def test_every_method(case, short, per_task, tmp_path):
    if tiny.refusals(case, short):
        pytest.skip(tiny.refusals(case, short)[0])
    made = tiny.methods(case, per_task=per_task)
    model = exports.model(short, made, dict.fromkeys(("seg", "depth"), gn.LinearHead()))
    gn.export(model, tmp_path / "out")
    check(model, tmp_path / "out")


REAL = (
    "mit_b0",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "convnext_tiny",
    "efficientnet_b0",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_size_of_every_family(name, tmp_path):
    torch.manual_seed(0)
    tasks = {"seg": gn.Semantic(classes=19), "depth": gn.Depth()}
    model = gn.adapt(gn.backbone(name), gn.LoRA(rank=8), tasks, gn.SegFormerHead(channels=64)).eval()
    exports.moved(model)
    made = gn.export(model, tmp_path / "out")
    assert made.bytes < 1.05 * 4 * sum(tensor.numel() for tensor in model.all_tensors().values()) + 1e6
    check(model, tmp_path / "out")
