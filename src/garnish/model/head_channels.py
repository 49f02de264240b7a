"""Whether heads give what their tasks have, told by the first pass instead of by a loss."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from garnish.errors import OptionError
from garnish.model.decoders import Decoder
from garnish.tasks.task import Task


def check_outputs(decoders: Mapping[str, Decoder], tasks: Mapping[str, Task], outputs: Mapping[str, Tensor]) -> None:
    """Raise :class:`OptionError` where a head gave another number of channels than its task has.

    A number that a graph leaves open is not told: bundles with other classes share it, and asking would fix it.
    """
    for name, x in outputs.items():
        if isinstance(x.shape[1], int) and x.shape[1] != tasks[name].channels:
            head = type(decoders[name].options).__name__
            raise OptionError(
                f"head of task {name!r}: the module of {head} gave {x.shape[1]} channels, the task has"
                f" {tasks[name].channels}; build(features, out_channels) makes a module with out_channels of them"
            )
