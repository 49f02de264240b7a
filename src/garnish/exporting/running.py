"""Running an exported file on pictures, from the bytes that are to be written.

Shape letters: N pictures, H W pixels, C channels.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from garnish.exporting.graph import quiet
from garnish.runtime.manifest import IMAGE


class Runner(ABC):
    """An exported file, loaded."""

    @abstractmethod
    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) of the file's dtype → its outputs, each (N, C, H, W) float32."""


@final
class OnnxRunner(Runner):
    """An ONNX file in onnxruntime, on the CPU."""

    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """See :class:`Runner`."""
        return tuple(torch.from_numpy(found) for found in self._session.run(None, {IMAGE: images.numpy()}))


@final
class ProgramRunner(Runner):
    """A ``.pt2`` file in torch."""

    def __init__(self, data: bytes) -> None:
        with quiet():
            self._module = torch.export.load(io.BytesIO(data)).module()

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """See :class:`Runner`."""
        with torch.no_grad():
            return tuple(self._module(images))


def runner_of(data: bytes, to: str) -> Runner:
    """The file of these bytes, loaded; ``to``: "onnx" or "torch"."""
    return OnnxRunner(data) if to == "onnx" else ProgramRunner(data)
