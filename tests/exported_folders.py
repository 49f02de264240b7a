"""Exported folders made by hand, of a few nodes each, whose raw outputs NumPy and torch can compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from garnish.decodings.classes import Classes
from garnish.decodings.decoding import Decoding
from garnish.decodings.directions import Directions
from garnish.decodings.probabilities import Probabilities
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.files.checksums import SUMS, with_sums
from garnish.registry import describe

DECODINGS: dict[str, Decoding] = {
    "seg": Classes(names=("sky", "road", "car")),
    "depth": SoftplusDepth(max_metres=20.0),
    "normals": Directions(),
    "edges": Probabilities(dark=True, none_colour=(204, 204, 204)),
}
TRUNK = {
    "name": "by_hand",
    "options": {},
    "fingerprint": "0" * 64,
    "licence": "CC0",
    "weights_source": "nowhere",
    "non_commercial": False,
}
RANK = {"a": ["r", 3], "b": [3, "r"]}  # of an adapter: x + b a x over the channels


def weights(seed: int, channels: int) -> np.ndarray:
    """(C, 3, 3, 3) of a convolution."""
    return np.random.default_rng(seed).normal(size=(channels, 3, 3, 3)).astype(np.float32)


def merged_graph(decodings: Mapping[str, Decoding] = DECODINGS, dtype: str = "uint8") -> bytes:
    """Pictures (n, 3, h, w) → for each task: a convolution of half the size, brought back bilinearly."""
    of_bytes = dtype == "uint8"
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["share"]),
        helper.make_node("Shape", ["image"], ["size"], start=2),
    ]
    held, outputs = [numpy_helper.from_array(np.array(255 if of_bytes else 1, np.float32), "white")], []
    for seed, (name, decoding) in enumerate(decodings.items()):
        held.append(numpy_helper.from_array(weights(seed, decoding.channels), f"{name}.weight"))
        nodes += [
            helper.make_node("Conv", ["share", f"{name}.weight"], [f"{name}.low"], pads=[1] * 4, strides=[2, 2]),
            helper.make_node("Shape", [f"{name}.low"], [f"{name}.kept"], end=2),
            helper.make_node("Concat", [f"{name}.kept", "size"], [f"{name}.size"], axis=0),
            helper.make_node("Resize", [f"{name}.low", "", "", f"{name}.size"], [name], mode="linear"),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", decoding.channels, "h", "w"]))
    kind = TensorProto.UINT8 if of_bytes else TensorProto.FLOAT
    image = helper.make_tensor_value_info("image", kind, ["n", 3, "h", "w"])
    return _model(nodes, [image], outputs, held)


def inputs_graph(slots: int = 2) -> bytes:
    """uint8 (n, 3, h, w) → ``output_K``: a 1×1 convolution of x + b a x, all three inputs with defaults that give 0."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["last", "a"], ["low"]),
        helper.make_node("MatMul", ["low", "b"], ["update"]),
        helper.make_node("Add", ["last", "update"], ["adapted"]),
    ]
    held = [numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in {"a": (3, 0), "b": (0, 3)}.items()]
    given = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, "h", "w"])]
    given += [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in graph_inputs(slots).items()]
    outputs = []
    for k in range(slots):
        held.append(numpy_helper.from_array(np.zeros((3, 1), np.float32), f"head_{k}"))
        nodes += [
            helper.make_node("MatMul", ["adapted", f"head_{k}"], [f"out_{k}"]),
            helper.make_node("Transpose", [f"out_{k}"], [f"output_{k}"], perm=[0, 3, 1, 2]),
        ]
        outputs.append(helper.make_tensor_value_info(f"output_{k}", TensorProto.FLOAT, ["n", f"c_{k}", "h", "w"]))
    return _model(nodes, given, outputs, held)


def graph_inputs(slots: int = 2) -> dict[str, list[int | str]]:
    """Inputs of :func:`inputs_graph` beside the picture."""
    return {"a": [3, "r"], "b": ["r", 3], **{f"head_{k}": [3, f"c_{k}"] for k in range(slots)}}


def _model(nodes: list, given: list, outputs: list, held: list) -> bytes:
    graph = helper.make_graph(nodes, "by_hand", given, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def facts_of(graph: bytes, **changes: Any) -> dict[str, Any]:
    """A manifest of form "merged" without tasks; ``changes`` are other keys."""
    return {
        "format": 1,
        "form": "merged",
        "to": "onnx",
        "precision": "fp32",
        "opset": 20,
        "versions": {"garnish": "0.1.0"},
        "backbone": TRUNK,
        "image": {"dtype": "uint8", "least": 1},
        "tasks": {},
        "outputs": [],
        "inputs": {},
        "sha256": hashlib.sha256(graph).hexdigest(),
        "certificate": {},
        **changes,
    }


def told_tasks(decodings: Mapping[str, Decoding], outputs: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        name: {"output": (outputs or {}).get(name, name), "channels": d.channels, "decoding": describe(d)}
        for name, d in decodings.items()
    }


def write_files(
    folder: Path, facts: Mapping[str, Any], graph: bytes, others: Mapping[str, bytes] | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = {"export.json": json.dumps(facts).encode(), "model.onnx": graph, **(others or {})}
    for name, data in with_sums(files).items():
        (folder / name).write_bytes(data)
    return folder


def merged(folder: Path, decodings: Mapping[str, Decoding] = DECODINGS, **changes: Any) -> Path:
    """A folder of form "merged" with a graph of :func:`merged_graph`."""
    graph = merged_graph(decodings)
    facts = facts_of(graph, tasks=told_tasks(decodings), outputs=list(decodings), **changes)
    return write_files(folder, facts, graph)


def with_inputs(folder: Path, slots: int = 2, **changes: Any) -> Path:
    """A folder of form "inputs" with a graph of :func:`inputs_graph`, without bundles."""
    graph = inputs_graph(slots)
    inputs = {name: {"dtype": "float32", "shape": shape} for name, shape in graph_inputs(slots).items()}
    outputs = [f"output_{k}" for k in range(slots)]
    return write_files(folder, facts_of(graph, form="inputs", inputs=inputs, outputs=outputs, **changes), graph)


def bundle_tensors(seed: int, rank: int, decoding: Decoding, slot: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed).normal
    sizes = {"a": (3, rank), "b": (rank, 3), f"head_{slot}": (3, decoding.channels)}
    return {name: draw(size=size).astype(np.float32) for name, size in sizes.items()}


def add_bundle(
    folder: Path,
    name: str,
    task: str,
    decoding: Decoding,
    held: Mapping[str, np.ndarray],
    slot: int = 0,
    **changes: Any,
) -> None:
    """Put a bundle of one task beside a graph; ``SHA256SUMS`` is as it was."""
    made = onnxruntime.AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(1)
    made.set_parameters({n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in held.items()})
    file = folder / f"{name}.onnx_adapter"
    made.export_adapter(str(file))
    facts = {
        "format": 1,
        "graph": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        "backbone": TRUNK,
        "tasks": told_tasks({task: decoding}, {task: f"output_{slot}"}),
        "tensors": {n: {"dtype": "float32", "shape": list(v.shape)} for n, v in held.items()},
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "certificate": {},
        **changes,
    }
    (folder / f"{name}.json").write_text(json.dumps(facts))


def raw_of(tensors: Mapping[str, np.ndarray], images: np.ndarray, slot: int = 0) -> np.ndarray:
    """What :func:`inputs_graph` gives with these tensors, in float64: (N, C, H, W)."""
    a, b, head = (tensors[name].astype(np.float64) for name in ("a", "b", f"head_{slot}"))
    last = images.transpose(0, 2, 3, 1).astype(np.float64)
    return ((last + last @ a @ b) @ head).transpose(0, 3, 1, 2)


def reseal(folder: Path) -> None:
    """``SHA256SUMS`` of the files as they are now."""
    files = {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file() and f.name != SUMS}
    (folder / SUMS).write_bytes(with_sums(files)[SUMS])
