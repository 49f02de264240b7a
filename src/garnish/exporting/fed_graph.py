"""One ONNX graph for a trunk, its methods and sites, and its kinds of heads: adapter and head tensors are its inputs.

Each of these inputs also has an initializer, so that it may be left out (:mod:`garnish.exporting.no_adapter`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.export import ExportedProgram

from garnish.errors import GarnishError, OptionError
from garnish.exporting.deployed import Deployed
from garnish.exporting.graph import to_onnx, traced
from garnish.exporting.open_sides import open_sides
from garnish.exporting.slots import Fed, Slot, own_slots
from garnish.model.model import Model
from garnish.output import logger
from garnish.runtime.manifest import IMAGE, InputFacts

if TYPE_CHECKING:
    import onnx


_log = logger(__name__)


def output_names(count: int) -> list[str]:
    """The names of a graph's outputs, which its bundles give to their tasks in order."""
    return [f"output_{number}" for number in range(count)]


def fed_graph(model: Model, dtype: torch.dtype) -> onnx.ModelProto:
    """The graph of a model, without initializers for its adapter and head tensors.

    Args:
        model: of :func:`garnish.exporting.deployed.plain_copy`; all of its tasks are in the graph.
        dtype: of the pictures, uint8 or float32.

    Raises:
        OptionError: all of the trunk is trained, so that there would be no graph to share.
        GarnishError: a model that cannot be traced, or an operation that has no translation.
    """
    slots = own_slots(model)
    tuned = {name for owner in model.owners for name in owner.tuned.names}
    if tuned.issuperset(model.backbone.frozen_tensors()):
        raise OptionError(
            "export: all of the trunk is trained, so bundles would share no graph but its operations; use"
            ' adapters="merged"'
        )
    sides = open_sides(model)
    tasks = list(model.tasks)
    module = Fed(Deployed(model, tasks), model, slots)
    try:
        program = _traced(module, model, dtype, slots, sides)
    except GarnishError as error:
        heads = {name: own for name, own in sides.items() if name.startswith("heads.")}
        program = _traced(module, model, dtype, slots, heads)
        _log.warning(
            "widths of the adapters are fixed in this graph, as it cannot be traced with open ones (%s)", error
        )
    trunk = model.backbone.frozen_tensors()
    return to_onnx(program, output_names(len(tasks)), trunk, [slot.name for slot in slots])


def _traced(
    module: Fed, model: Model, dtype: torch.dtype, slots: Sequence[Slot], sides: Mapping[str, Collection[int]]
) -> ExportedProgram:
    left_open = [sides.get(slot.name, ()) for slot in slots]
    # tracing fixes a side of 1, which a rank or a depth map's channel is
    examples = [
        torch.zeros([3 if side in own and size == 1 else size for side, size in enumerate(slot.value.shape)])
        for slot, own in zip(slots, left_open, strict=True)
    ]
    return traced(module, model.backbone, dtype, examples, left_open)


def input_facts(proto: onnx.ModelProto) -> dict[str, InputFacts]:
    """Name → type and shape of the inputs beside the pictures; an open side has a name in place of a number."""
    found: dict[str, InputFacts] = {}
    for value in proto.graph.input:
        if value.name != IMAGE:
            sides = value.type.tensor_type.shape.dim
            found[value.name] = {
                "dtype": "float32",
                "shape": [side.dim_param if side.HasField("dim_param") else side.dim_value for side in sides],
            }
    return found


def with_defaults(proto: onnx.ModelProto, values: Mapping[str, Tensor]) -> onnx.ModelProto:
    """The graph with initializers for its inputs beside the pictures; changed in place."""
    from onnx import numpy_helper

    for value in proto.graph.input:
        if value.name != IMAGE:
            array = values[value.name].detach().float().contiguous().numpy()
            proto.graph.initializer.append(numpy_helper.from_array(array, value.name))
    return proto


def misfit(inputs: Mapping[str, InputFacts], shapes: Mapping[str, Sequence[int]]) -> str:
    """Why tensors are not those that a graph takes, in a few words; empty if they are.

    Args:
        inputs: of the graph.
        shapes: name → shape of the tensors; more than the graph takes may be there.
    """
    sides: dict[str, int] = {}
    for name, facts in inputs.items():
        if name not in shapes:
            return f"it has no {name}"
        wanted, found = facts["shape"], shapes[name]
        fits = len(wanted) == len(found) and all(
            sides.setdefault(side, size) == size if isinstance(side, str) else side == size
            for side, size in zip(wanted, found, strict=True)
        )
        if not fits:
            return f"its {name} is {tuple(found)}, the graph takes {tuple(wanted)}"
    return ""
