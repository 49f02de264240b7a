"""From a module to the bytes of a file: a ``torch.export`` program of open sizes, and its translation to ONNX.

Shape letters: N pictures, H W pixels.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from garnish.engine.trunk import Trunk
from garnish.errors import GarnishError, MissingExtraError, one_line
from garnish.heads.head import is_plain
from garnish.output import muted
from garnish.runtime.manifest import IMAGE

if TYPE_CHECKING:
    import onnx

#: Version of the operators: the least that has Gelu (20), LayerNormalization (17) and DeformConv (19) as they are.
OPSET = 20
#: Number and sides of the example that is traced, which no size in a model is; no side is 1 on any map.
_EXAMPLE = (2, 286, 413)
#: Most bytes of an ONNX file: it is one message of protocol buffers.
_MOST_BYTES = 2**31 - 1


def least_side(trunk: Trunk) -> int:
    """The smallest side of a picture, in pixels, for which a graph holds: more than the coarsest map's stride.

    torch asks of every map whether a side of it is 1, and a graph keeps the answer of its example. The coarsest map of
    a plain trunk is that of its pyramid, of twice its stride.
    """
    coarsest = trunk.multiple * (2 if is_plain(trunk.features) else 1)
    return coarsest + 1


def traced(
    module: nn.Module,
    trunk: Trunk,
    dtype: torch.dtype,
    own: Sequence[Tensor] | None = None,
    open_sides: Sequence[Collection[int]] = (),
    channels: int = 3,
) -> ExportedProgram:
    """The graph of a module that takes pictures, for any number of them and any sides from :func:`least_side`.

    Args:
        module: (N, channels, H, W) → tensors; in evaluation mode.
        trunk: the trunk inside it.
        dtype: of the pictures: uint8, uint16 or float32.
        own: examples of further inputs, which the module takes as a list beside the pictures; None: it takes none.
        open_sides: of each of them the sides to be left open; the graph may fix one all the same.
        channels: of the pictures.

    Raises:
        GarnishError: it has a condition on sizes, or an operation that cannot be traced.
    """
    least = least_side(trunk)
    count, height, width = _EXAMPLE
    example = torch.zeros(count, channels, height + least, width + least, dtype=dtype)
    # plain numbers are names: they become those of the sides of inputs and outputs
    sizes: Any = ({0: Dim("N", min=1), 2: Dim("H", min=least), 3: Dim("W", min=least)},)
    given: tuple[Any, ...] = (example,)
    if own is not None:
        given = (example, list(own))
        sizes = (*sizes, [dict.fromkeys(sides, Dim.AUTO) for sides in open_sides])
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(module, given, dynamic_shapes=sizes, strict=False)
    except Exception as error:  # whatever a stranger's head or method raises while it is traced
        raise GarnishError(
            f"export: {trunk.name} with these methods and heads cannot be traced ({_said(error)}); "
            "run the bundle with torch, or leave out what this names"
        ) from error


def to_onnx(
    program: ExportedProgram, outputs: Sequence[str], tensors: Mapping[str, Tensor], own: Sequence[str] = ()
) -> onnx.ModelProto:
    """The ONNX model of a traced program, with named inputs and outputs; inputs that nothing reads are left out.

    Args:
        program: of :func:`traced`.
        outputs: names of the outputs, in order.
        tensors: name → tensor of the module that was traced, under which its values are stored in the graph.
        own: names of the inputs beside the pictures.

    Raises:
        MissingExtraError: a package of the extra ``[onnx]`` is not installed.
        GarnishError: an operation that has no translation.
    """
    require_onnx()
    try:
        with torch.no_grad(), quiet():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                input_names=[IMAGE, *own],
                output_names=list(outputs),
            )
    except Exception as error:
        raise GarnishError(
            f"export: the graph cannot be translated to ONNX ({_said(error)}); use --to torch"
        ) from error
    assert made is not None
    tidy(made.model, [IMAGE, *own], outputs)
    for value in [value for value in made.model.graph.inputs if value.name != IMAGE and not value.uses()]:
        made.model.graph.inputs.remove(value)
    name_weights(made.model, program.state_dict, tensors)
    proto: onnx.ModelProto = made.model_proto
    name_sides(proto)
    return proto


def tidy(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Remove what a graph need not say, and rename inner values that have the name of an input or output.

    The exporter notes the Python line of every operation, with the paths of this machine.

    Args:
        model: an ``onnx_ir.Model``, changed in place.
        inputs: the names that are to be theirs alone.
        outputs: likewise.
    """
    graph = model.graph
    taken = {*inputs, *outputs}
    named = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for one in (model, graph):
        one.metadata_props.clear()
        one.doc_string = None
    for value in (*graph.inputs, *graph.initializers.values(), *graph.outputs):
        value.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value.name in taken and id(value) not in named:
                value.name = f"{value.name}/inner"


def name_weights(model: Any, stored: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Give initializers the names of the tensors whose values they hold, also where they are transposed.

    The exporter names them by the Python attributes that led to them, and transposed ones, of linear layers, by number.

    Args:
        model: an ``onnx_ir.Model``, changed in place.
        stored: the exporter's own name → tensor.
        tensors: the name to use → tensor.
    """
    by_place = {tensor.data_ptr(): known for known, tensor in tensors.items() if tensor.numel()}
    by_values: dict[bytes, str] = {}
    for known, tensor in tensors.items():
        if tensor.ndim == 2:
            by_values.setdefault(_digest(tensor.T), known)
    graph = model.graph
    taken = {value.name for node in graph.all_nodes() for value in node.outputs}
    for value in list(graph.initializers.values()):
        own = stored.get(value.name)
        name: str | None = None if own is None else by_place.get(own.data_ptr())
        if name is None and len(value.const_value.shape) == 2:
            name = by_values.get(_digest(torch.from_numpy(value.const_value.numpy())))
        if name is not None and name not in taken and name not in graph.initializers:
            value.name = name


def _digest(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).digest()


def name_sides(model: onnx.ModelProto) -> None:
    """Name the open sides of pictures and outputs N, H and W, and drop the noted shapes of inner values.

    Those are formulas of the exporter's own symbols; runtimes infer what they need.
    """
    del model.graph.value_info[:]
    for value in (*(one for one in model.graph.input if one.name == IMAGE), *model.graph.output):
        for place, name in ((0, "N"), (2, "H"), (3, "W")):
            value.type.tensor_type.shape.dim[place].dim_param = name


def onnx_bytes(model: onnx.ModelProto) -> bytes:
    """The bytes of an ONNX file; raises GarnishError for more than one file can hold."""
    size = model.ByteSize()
    if size > _MOST_BYTES:
        raise GarnishError(
            f"export: the graph has {size / 2**30:.1f} GiB, an ONNX file at most 2; use --precision fp16, or --to torch"
        )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def program_bytes(program: ExportedProgram) -> bytes:
    """The bytes of a ``.pt2`` file."""
    stream = io.BytesIO()
    with quiet():
        torch.export.save(program, stream)
    return stream.getvalue()


def require_onnx() -> None:
    """Raise MissingExtraError unless the packages of the extra ``[onnx]`` can be imported."""
    import importlib.util

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"export to ONNX needs {', '.join(missing)}; pip install 'garnish[onnx]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's warnings and progress, which speak to its developers."""
    loud = ("torch.onnx", "torch.export", "torch.__trace", "onnxscript", "onnx_ir")
    with muted(*loud), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _said(error: BaseException) -> str:
    """The first cause of an error in one line: the exporter wraps it into pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(error, 200)}"
