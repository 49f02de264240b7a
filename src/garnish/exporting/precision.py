"""How the trunk's weights are stored in an ONNX file: float16, or eight bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from garnish.runtime.manifest import Precision

if TYPE_CHECKING:
    import onnx


def stored_as(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """The same graph with the trunk's weights stored otherwise."""
    return model
