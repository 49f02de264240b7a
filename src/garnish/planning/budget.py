"""The budget of a plan: limits on parameters, bytes, memory and time, and parsing them from the command line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import final

from garnish.errors import OptionError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"


@final
@dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper limits, all of which must hold; None: no limit.

    Attributes:
        share: trained parameters of the encoder over all parameters of the bare backbone.
        bundle_bytes: of a bundle's weights file.
        memory_bytes: of a training step, including Python and its libraries.
        step_ratio: time of a training step over that of a step that trains only the heads.
    """

    share: float | None = None
    bundle_bytes: int | None = None
    memory_bytes: int | None = None
    step_ratio: float | None = None

    @property
    def needs_a_step(self) -> bool:
        """Whether a limit is set that needs a predicted step to check."""
        return self.memory_bytes is not None or self.step_ratio is not None


def share(text: str) -> float:
    """Parse a percentage: ``1%`` → 0.01.

    Raises:
        OptionError: anything else.
    """
    found = re.fullmatch(_NUMBER + r"\s*%", text.strip())
    value = float(found[1]) / 100 if found else 0.0
    return _positive(value, f"{text!r} is no share of the backbone's parameters; write a percentage above 0, e.g. 1%")


def size(text: str) -> int:
    """Parse ``500k``, ``1.5MB``, ``8GB`` or ``2GiB`` to bytes; k, M, G are powers of 1000, Ki, Mi, Gi of 1024.

    Raises:
        OptionError: anything else.
    """
    found = re.fullmatch(_NUMBER + r"\s*([kKmMgG]i?)?[bB]?", text.strip())
    value = float(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0.0
    return int(_positive(value, f"{text!r} is not a size; write bytes above 0, e.g. 500k, 1.5MB or 8GB"))


def memory(text: str) -> int:
    """Parse a size of memory as :func:`size` does.

    Raises:
        OptionError: anything else, or less than a megabyte, which is a number whose unit was forgotten.
    """
    found = size(text)
    if found < 10**6:
        raise OptionError(f"{text!r} is {found} bytes, in which no step fits; write the unit, e.g. 8GB")
    return found


def ratio(text: str) -> float:
    """Parse a factor: ``1.5x`` → 1.5.

    Raises:
        OptionError: anything else.
    """
    found = re.fullmatch(_NUMBER + r"\s*[xX×]", text.strip())
    value = float(found[1]) if found else 0.0
    return _positive(value, f"{text!r} is not a multiple of the step of heads only; write one above 0, e.g. 1.5x")


def _positive(value: float, otherwise: str) -> float:
    if not 0 < value < math.inf:
        raise OptionError(otherwise)
    return value
