"""Which of torch's functions are cheap enough to run again in the backward pass, by name.

:mod:`garnish.engine.remaking` asks for every function that a training pass calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

#: Names of torch's functions whose output is made again: a few operations a value, the same result each time.
CHEAP = frozenset(
    [
        *("layer_norm", "group_norm", "rms_norm", "normalize"),
        *("gelu", "silu", "relu", "hardswish", "leaky_relu", "elu", "mish", "softplus", "sigmoid", "tanh"),
        *("add", "sub", "mul", "div", "neg", "square", "addcmul", "masked_fill", "where"),
        *("clone", "contiguous", "reshape", "flatten", "to", "float", "half", "bfloat16"),
        *("roll", "pad", "interpolate", "cat", "stack", "index_select", "repeat", "repeat_interleave"),
    ]
)
#: Names of products, cheap where they add up at most this many terms (the two small matrices of a low-rank update).
PRODUCTS, FEW_TERMS = frozenset({"matmul", "mm", "bmm"}), 64
#: Names of products that autocasting gives inputs of its own type, copies that are noted here instead.
CAST = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
#: Functions that write into their first argument, beside those whose names end so: ``add_``.
WRITING = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"})
#: Functions whose names end so and that write nothing.
NOT_WRITING = frozenset({"requires_grad_"})
#: Names of the argument that functions write to: of torch's own, and of ``torch.nn.init``.
WRITTEN = ("out", "input", "tensor")


@cache
def how_to_run(name: str) -> Literal["plain", "write", "cheap", "other"]:
    """What is done where a function of this name is called: nothing; it writes; it is cheap; or it has its own way."""
    if name in WRITING or (name[-1:] == "_" and name[:2] != "__" and name not in NOT_WRITING):
        return "write"
    if name in CHEAP:
        return "cheap"
    own = {*CAST, *PRODUCTS, "batch_norm", "dropout"}
    return "other" if name in own else "plain"


def written_to(args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
    """The tensor, or the list of tensors, that a writing call writes to; all arguments if that is not known."""
    named = next((kwargs[name] for name in WRITTEN if kwargs.get(name) is not None), tuple(kwargs.values()))
    return args[0] if args and kwargs.get("out") is None else named
