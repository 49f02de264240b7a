"""Weights stored as float16 and in eight bits, in graphs made by hand, against NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from garnish.exporting.precision import quantised, stored_as

NORMAL = np.random.default_rng(0).normal
LINEAR, CONV, HEAD = (
    NORMAL(size=shape).astype(np.float32) * np.float32(scale)
    for shape, scale in (((48, 40), 0.2), ((48, 3, 5, 3), 1.0), ((40, 8), 1.0))
)
TABLE = NORMAL(size=(48, 20)).astype(np.float32)
HELD = {"linear": LINEAR, "conv": CONV, "head": HEAD, "table": TABLE, "small": np.ones((40, 1), np.float32)}


def graph() -> onnx.ModelProto:
    """(n, 3, 5, 3) → conv · linear · head, and a table that is read twice, once as a weight."""
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["map"]),
        helper.make_node("Flatten", ["map"], ["flat"]),
        helper.make_node("MatMul", ["flat", "linear"], ["low"]),
        helper.make_node("MatMul", ["low", "head"], ["y"]),
        helper.make_node("MatMul", ["flat", "table"], ["z"]),
        helper.make_node("Transpose", ["table"], ["turned"]),
        helper.make_node("MatMul", ["low", "small"], ["one"]),
    ]
    shapes = {"y": ["n", 8], "z": ["n", 20], "turned": [20, 48], "one": ["n", 1]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5, 3])
    made = helper.make_graph(nodes, "g", [x], values, [numpy_helper.from_array(a, n) for n, a in HELD.items()])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray, *, fuse: bool) -> list[np.ndarray]:
    """Its outputs; ``fuse``: as onnxruntime runs it by default, which may round activations beside int8 weights."""
    options = onnxruntime.SessionOptions()
    if not fuse:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found: list[np.ndarray] = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    return found


def expected(held: dict[str, np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    flat = np.einsum("ncij,ocij->no", x.astype(np.float64), held["conv"])
    low = flat @ held["linear"]
    return [low @ held["head"], flat @ held["table"], held["table"].T, low @ held["small"]]


WEIGHTS = ("linear", "conv", "table", "small")


def test_each_output_channel_has_a_scale_and_is_off_by_half_of_it_at_most():
    for values, axis in ((LINEAR, 1), (CONV, 0), (np.zeros((4, 3), np.float32), 1)):
        whole, scale = quantised(values, axis)
        assert whole.dtype == np.int8 and scale.dtype == np.float32 and scale.shape == (values.shape[axis],)
        wide = scale.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
        assert np.abs(whole * wide - values).max() <= scale.max() / 2 * (1 + 1e-6)
        assert np.abs(whole).max() in (0, 127)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_graph_computes_with_the_stored_weights(precision):
    made = stored_as(graph(), precision, WEIGHTS)
    onnx.checker.check_model(made)
    x = NORMAL(size=(4, 3, 5, 3)).astype(np.float32)
    held = dict(HELD)
    for name, axis in (("linear", 1), ("conv", 0), ("table", None)):
        if precision == "fp16":
            held[name] = HELD[name].astype(np.float16).astype(np.float32)
        elif axis is not None:  # what is read in two ways is not a layer's weight
            whole, scale = quantised(HELD[name], axis)
            held[name] = whole * scale.reshape([-1 if k == axis else 1 for k in range(whole.ndim)])
    for got, want in zip(run(made, x, fuse=False), expected(held, x), strict=True):
        assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()
    for got, want in zip(run(made, x, fuse=True), expected(HELD, x), strict=True):
        assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_is_stored(precision):
    before = graph().SerializeToString()
    made = stored_as(graph(), precision, WEIGHTS)
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds["head"] == kinds["small"] == TensorProto.FLOAT  # not of the trunk; too small
    if precision == "fp16":
        assert {n for n, kind in kinds.items() if kind == TensorProto.FLOAT16} == {
            f"{name}/fp16" for name in ("linear", "conv", "table")
        }
        assert made.ByteSize() < 0.65 * len(before)
    else:
        assert {n for n, kind in kinds.items() if kind == TensorProto.INT8} == {"linear/int8", "conv/int8"}
        assert kinds["table"] == TensorProto.FLOAT
    assert graph().SerializeToString() == before
