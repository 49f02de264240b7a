"""Reading a stranger's ``config.json`` as one of transformers' configurations: the fields that say what is computed.

An architecture states them in a dataclass, with transformers' own defaults, which a file may leave out. What it does
not state is about training, classifiers or how outputs are handed over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from garnish.checking.plain_data import Json, Reading, Within, integers, read_as
from garnish.errors import OptionError

T = TypeVar("T")

#: transformers' names of activations → timm's
ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu", "relu": "relu", "relu6": "relu6", "silu": "silu", "swish": "silu", "mish": "mish",
    "sigmoid": "sigmoid", "tanh": "tanh",
}  # fmt: skip
Activation = Literal[
    "gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu6", "silu", "swish", "mish",
    "sigmoid", "tanh",
]  # fmt: skip
#: where the trunk has no choice
Gelu = Literal["gelu", "gelu_python"]

#: pictures in colour
Channels = Annotated[int, Within("3, for pictures have three channels", lambda channels: channels == 3)]
#: dropouts and stochastic depths that a family of timm's does not have alike
Nought = Annotated[float, Within("0, for timm drops elsewhere or otherwise in training", lambda rate: rate == 0)]
_Side = Annotated[int, integers(1, 8192)]
#: one side, or two that are the same
Square = (
    _Side | Annotated[tuple[_Side, _Side], Within("one side or two that are the same", lambda two: two[0] == two[1])]
)
#: whether there is what no trunk here has
Absent = Annotated[bool, Within("false, for no trunk here has it", lambda there: not there)]
#: whether there is what each trunk here has
Present = Annotated[bool, Within("true, for each trunk here has it", lambda there: there)]


def read_config(config: Mapping[str, Json], takes: type[T], where: str) -> T:
    """The fields of a configuration that a dataclass states.

    Args:
        config: content of a ``config.json``.
        takes: a dataclass with a default for each field.
        where: the file, for messages.

    Raises:
        OptionError: a value of another type or out of bounds, or one that no trunk computes; one line.
    """
    fields: Any = takes
    known = {field.name for field in dataclasses.fields(fields)}
    stated = {key: value for key, value in config.items() if key in known}
    return read_as(stated, takes, "", Reading(file=f"{where}: "))


def side(square: int | tuple[int, int]) -> int:
    """The side of a :data:`Square`."""
    return square if isinstance(square, int) else square[0]


def mlp_ratio(hidden: int, channels: int, where: str) -> float:
    """The ``mlp_ratio`` of which timm makes this hidden width, rounding down.

    Raises:
        OptionError: one that no trunk has.
    """
    exact = hidden / channels
    if not 0.125 <= exact <= 64:
        raise OptionError(
            f"{where}: an MLP's hidden width of {hidden:,} to {channels:,} channels is {exact:,.3g} times as wide; "
            "trunks have 0.125 to 64"
        )
    return exact if int(channels * exact) == hidden else (hidden + 0.5) / channels
