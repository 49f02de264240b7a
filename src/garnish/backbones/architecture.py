"""Architecture options of the families: their types and bounds, and reading them.

Options come from recipes and from bundles of strangers. A family states each one that it takes in a dataclass, and what
it does not state reaches no constructor: numbers, flags and names of layers, never a path, an address or an import.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from garnish.checking.plain_data import Reading, Within, integers, read_as, reals
from garnish.errors import OptionError

T = TypeVar("T")

#: Blocks that options may ask for; published transformers have 64 at most, and each takes milliseconds to build.
MOST_BLOCKS = 128
MOST_STAGES = 8


def per_stage(most: int, *, least: int = 1, together: int | None = None) -> Within:
    """One whole number from ``least`` to ``most`` a stage; ``together``: the most that they add up to."""
    told = f"1 to {MOST_STAGES} whole numbers (one a stage) from {least} to {most:,}"
    return Within(
        told + (f", {together:,} in all" if together else ""),
        lambda entries: (
            1 <= len(entries) <= MOST_STAGES
            and all(least <= entry <= most for entry in entries)
            and (together is None or sum(entries) <= together)
        ),
    )


Flag = bool
Width = Annotated[int, integers(1, 16_384)]
Depth = Annotated[int, integers(1, MOST_BLOCKS)]
Heads = Annotated[int, integers(1, 1024)]
Tokens = Annotated[int, integers(0, 1024)]
Rate = Annotated[float, reals(0, 1, below=True)]
#: Of a hidden width to the channels, of which there are at least eight: below, nothing would be hidden.
Ratio = Annotated[float, reals(0.125, 64)]
#: start of a layer scale
Scale = Annotated[float, reals(0, 1000)]
Epsilon = Annotated[float, reals(0, 1, above=True)]
_Side = Annotated[int, integers(1, 8192)]
_PatchSide = Annotated[int, integers(1, 256)]
_WindowSide = Annotated[int, integers(1, 32)]
Kernel = Annotated[int, Within("an odd whole number from 1 to 63", lambda side: side % 2 == 1 and 1 <= side <= 63)]
#: height and width in pixels, or one number for both
Size = _Side | tuple[_Side, _Side]
Patch = _PatchSide | tuple[_PatchSide, _PatchSide]
Widths = Annotated[tuple[int, ...], per_stage(16_384)]
Depths = Annotated[tuple[int, ...], per_stage(MOST_BLOCKS, together=MOST_BLOCKS)]
StageHeads = Annotated[tuple[int, ...], per_stage(1024)]
StageKernels = Annotated[
    tuple[int, ...],
    Within(
        f"1 to {MOST_STAGES} odd whole numbers (one a stage) from 1 to 63",
        lambda sides: 1 <= len(sides) <= MOST_STAGES and all(side % 2 == 1 and 1 <= side <= 63 for side in sides),
    ),
]
#: side of a window in tokens, its height and width, or one side a stage
Window = _WindowSide | tuple[_WindowSide, _WindowSide] | Annotated[tuple[int, ...], per_stage(32)]
Stride = Literal[1, 2, 4, 8, 16, 32]
#: names of activations and norms, of those that timm knows by name
Activation = Literal[
    "gelu", "gelu_tanh", "quick_gelu", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "silu", "swish", "mish",
    "sigmoid", "tanh", "hard_sigmoid", "hard_swish", "hard_mish",
]  # fmt: skip
#: of tokens
Norm = Literal["layernorm", "layernormfp32", "rmsnorm", "rmsnormfp32", "simplenorm", "simplenormfp32"]
#: of maps
MapNorm = Literal[
    "batchnorm2d", "frozenbatchnorm2d", "groupnorm", "groupnorm1", "layernorm2d", "layernorm2dfp32", "rmsnorm2d",
    "rmsnorm2dfp32", "simplenorm2d", "simplenorm2dfp32",
]  # fmt: skip

#: Options of our own, which no constructor of timm's takes.
OWN = frozenset({"layer_norm_eps", "pos_antialias"})
#: of a channel of pictures in [0, 1]
_Mean = Annotated[float, reals(-10, 10)]
_Std = Annotated[float, reals(0, 100, above=True)]
Mean = tuple[_Mean, _Mean, _Mean]
Std = tuple[_Std, _Std, _Std]

_OPTIONS = Reading()
#: What constructors raise for numbers that do not go together: they assert, look up, divide and multiply.
UNBUILDABLE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def read_architecture(name: str, options: Mapping[str, object], takes: type[T]) -> T:
    """The options of a trunk as its family's dataclass.

    Args:
        name: of the trunk, for messages.
        options: as a recipe, a bundle or a caller gives them.
        takes: a dataclass whose fields have the types of this module, or others; None, where one is allowed and the
            default, stands for what the name says.

    Raises:
        OptionError: an unknown option, or a value of another type or out of bounds; one line.
    """
    made: T = read_as(dict(options), takes, name, _OPTIONS)
    return made


def check_lengths(name: str, arch: Any, *options: str, stages: int = 4) -> None:
    """Raise OptionError unless options by stage have one length; those left out have ``stages`` entries by the name."""
    values = {option: getattr(arch, option) for option in options}
    lengths = {option: stages if value is None else len(value) for option, value in values.items()}
    first = options[0]
    for option in options[1:]:
        if lengths[option] != lengths[first]:
            told = [f"{o} has {n} entries{' by its name' * (values[o] is None)}" for o, n in lengths.items()]
            raise OptionError(f"{name}: {', '.join(told)}; give one entry a stage to each")


def given(arch: Any) -> dict[str, Any]:
    """Option → value of those that are not None, as a constructor of timm's takes them."""
    values = {field.name: getattr(arch, field.name) for field in dataclasses.fields(arch)}
    return {option: value for option, value in values.items() if value is not None and option not in OWN}
