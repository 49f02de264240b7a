"""How much a training pass keeps for its backward pass: the levels, and which block of a trunk has which.

A pass that keeps less computes more in its backward pass; gradients are the same (:mod:`garnish.engine.remaking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from garnish.errors import OptionError, shown

#: ``fast``: what autograd keeps. ``lean``: without what is cheap to make again. ``least``: a block's input alone, so
#: that the whole block runs again.
Level = Literal["fast", "lean", "least"]
LEVELS: tuple[Level, ...] = get_args(Level)


def levels_of(where: str, memory: object, num_blocks: int) -> tuple[Level, ...]:
    """One level per block.

    Args:
        where: begins the message of an error.
        memory: one level for all blocks, or one per block.
        num_blocks: blocks of the trunk, over all stages.

    Raises:
        OptionError: another value, or another number of levels.
    """
    if isinstance(memory, str):
        given: Sequence[object] = (memory,) * num_blocks
    else:
        given = tuple(memory) if isinstance(memory, Sequence) else (memory,)
        if len(given) != num_blocks:
            raise OptionError(
                f"{where}: expected one of {', '.join(LEVELS)}, or one for each of {num_blocks} blocks; got"
                f" {shown(memory)}"
            )
    for level in given:
        if level not in LEVELS:
            raise OptionError(f"{where}: {shown(level)} is unknown; use {', '.join(LEVELS)}")
    return tuple(given)  # type: ignore[arg-type]


def may_remake() -> bool:
    """Whether a pass that starts here can keep less than autograd would, and has a use for it.

    Not without gradients, nor where the pass is recorded (compiled, exported or traced), nor inside a transform of
    ``torch.func`` or forward-mode differentiation, nor inside saved-tensor hooks of somebody else (activations moved to
    the host, or a checkpoint around the trunk), who wants to see what is kept.
    """
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not is_transformed()
        and torch.autograd.forward_ad._current_level < 0
        and torch._C._autograd._saved_tensors_hooks_get_disabled_error_message() is None
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    )


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` (vmap, grad) is running, whose tensors are not what they look like."""
    return torch._C._functorch.peek_interpreter_stack() is not None
