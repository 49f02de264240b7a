"""A copy of a model in memory that shares its tensors, to be looked at and run without changing the model."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from garnish.errors import OptionError, one_line

M = TypeVar("M", bound=nn.Module)

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def copied(model: M) -> M:
    """The model in evaluation mode without hooks, its tensors on the CPU and, where they are there already, shared.

    Raises:
        OptionError: it holds what cannot be copied.
    """
    seen: dict[int, object] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        seen[id(tensor)] = _on_cpu(tensor)
    try:
        made = copy.deepcopy(model, seen)
    except (RuntimeError, TypeError) as error:
        raise OptionError(
            f"backbone: the model cannot be copied ({one_line(error, 120)}); give one that is as its library built it"
        ) from None
    for module in made.modules():
        for hooks in _HOOKS:
            getattr(module, hooks).clear()
    return made.eval()


def hooked(model: nn.Module) -> list[str]:
    """Names of the modules that have hooks, which may change what a model computes.

    Those of transformers' own do not count: they record hidden states, and stay once that was asked for.
    """
    return [name for name, module in model.named_modules() if any(_hooks_of(module))]


def _hooks_of(module: nn.Module) -> list[object]:
    hooks = [hook for kind in _HOOKS for hook in getattr(module, kind).values()]
    return [hook for hook in hooks if not str(getattr(hook, "__module__", "")).startswith("transformers.")]


def _on_cpu(tensor: Tensor) -> Tensor:
    if tensor.device.type in ("cpu", "meta"):
        return tensor
    moved = tensor.detach().cpu()
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved
