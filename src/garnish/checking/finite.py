"""Checks whether tensors are finite; others are never saved, ranked, or shown as a map.

Shape letters: K pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from garnish.checking.tensor_facts import remembered


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Name the tensors with infinite or NaN values, for a message; empty if all are finite.

    Reads each tensor once and allocates nothing, so it costs little compared to reading or writing a file.

    Args:
        tensors: of any dtype, shape and device; integers are finite.

    Returns:
        ``NAME holds 1 of 768 values that are not finite``, with the number of further such tensors; or "".
    """
    odd = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if not odd:
        return ""
    values = tensors[odd[0]].detach()
    more = f", and so do {len(odd) - 1} more tensors" if len(odd) > 1 else ""
    return f"{odd[0]} holds {int((~values.isfinite()).sum())} of {values.numel()} values that are not finite{more}"


def all_finite(module: nn.Module) -> bool:
    """Whether a module's tensors are finite; cached until one is written or replaced (:func:`remembered`)."""
    return remembered(module, "finite", lambda: all(map(is_finite, (*module.parameters(), *module.buffers()))))


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are finite; True for integers, empty tensors and meta tensors."""
    if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
        return True
    values = tensor.detach()
    # minimum and maximum propagate NaN; float8 supports neither
    least, most = torch.aminmax(values.float() if values.element_size() == 1 else values)
    if values.is_cpu:  # a tenth of the time where tensors are small; elsewhere each number is waited for
        return math.isfinite(least.item()) and math.isfinite(most.item())
    return bool(least.isfinite() & most.isfinite())


def odd_rows(outputs: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Task → the rows of its output (K, …) that are not finite, for tasks that have any."""
    return {
        name: torch.nonzero(~out.isfinite().flatten(1).all(1)).flatten().tolist()
        for name, out in outputs.items()
        if not is_finite(out)
    }


def why_odd(tensors: Mapping[str, Tensor]) -> str:
    """Why the outputs of a model with these tensors are not finite, and what to do, for a message."""
    if held := not_finite(tensors):
        return f"for the model's {held}; train it again, or take a model that was saved before"
    return "though all of the model's tensors are finite, so its numbers overflow: run it in float32 (model.float())"
