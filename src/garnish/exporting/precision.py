"""How the trunk's weights are stored in an ONNX file: float16, or eight bits with a scale for each output channel.

Both are computed with in float32: a runtime widens float16 weights when it loads the file, and eight bits when it uses
them. Adapters that are not folded, heads, norms and biases stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from garnish.runtime.manifest import Precision

if TYPE_CHECKING:
    import onnx

#: Fewest values of a tensor that is stored otherwise; smaller ones are not worth a node.
_FEWEST = 256


def stored_as(model: onnx.ModelProto, precision: Precision, weights: Iterable[str]) -> onnx.ModelProto:
    """A copy of a graph with some of its weights stored otherwise.

    Args:
        model: the graph, in float32.
        precision: "fp16" or "int8".
        weights: names of the initializers, those of the trunk.
    """
    import onnx
    from onnx import numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, wanted = made.graph, set(weights)
    axes = _output_axes(graph)
    first: list[Any] = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if tensor.name not in wanted or values.dtype != np.float32 or values.size < _FEWEST:
            continue
        if precision == "fp16":
            stored = [(f"{tensor.name}/fp16", values.astype(np.float16))]
            node = onnx.helper.make_node("Cast", [stored[0][0]], [tensor.name], to=onnx.TensorProto.FLOAT)
        elif tensor.name in axes:
            axis = axes[tensor.name]
            whole, scale = quantised(values, axis)
            stored = [(f"{tensor.name}/int8", whole), (f"{tensor.name}/scale", scale)]
            names = [name for name, _ in stored]
            node = onnx.helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis)
        else:
            continue
        graph.initializer.remove(tensor)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored)
        first.append(node)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *rest])
    return made


def quantised(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 weights → int8 of the same shape and a float32 scale for each entry of ``axis``, symmetric around 0.

    Each entry's largest magnitude becomes 127, so that ``int8 · scale`` is off by half a scale at most.
    """
    others = tuple(k for k in range(values.ndim) if k != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale.reshape(-1)


def _output_axes(graph: onnx.GraphProto) -> dict[str, int]:
    """Initializer → the axis of its output channels, for those that are only ever the weight of a layer."""
    found: dict[str, set[int | None]] = {}
    for name, axis in _uses(graph):
        found.setdefault(name, set()).add(axis)
    single = {name: next(iter(axes)) for name, axes in found.items() if len(axes) == 1}
    return {name: axis for name, axis in single.items() if axis is not None}


def _uses(graph: onnx.GraphProto) -> Iterator[tuple[str, int | None]]:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if place == 1 and node.op_type == "MatMul":
                yield name, 1
            elif place == 1 and node.op_type == "Conv":
                yield name, 0
            elif place == 1 and node.op_type == "Gemm":
                across = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
                yield name, 0 if across else 1
            else:
                yield name, None
