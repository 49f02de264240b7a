"""What a plan must keep to, and how it is written on the command line."""

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
    """Bounds that all must hold; None: no bound.

    Attributes:
        share: trained parameters of the encoder over all parameters of the bare backbone.
        bundle_bytes: of a bundle's weights file.
        memory_bytes: of a training step, what Python and its libraries take included.
        step_ratio: time of a training step over that of heads only.
    """

    share: float | None = None
    bundle_bytes: int | None = None
    memory_bytes: int | None = None
    step_ratio: float | None = None

    @property
    def needs_a_step(self) -> bool:
        """Whether a bound is set that only a predicted step can be held against."""
        return self.memory_bytes is not None or self.step_ratio is not None


def share(text: str) -> float:
    """``1%`` → 0.01.

    Raises:
        OptionError: anything else.
    """
    found = re.fullmatch(_NUMBER + r"\s*%", text.strip())
    value = float(found[1]) / 100 if found else 0.0
    return _positive(value, f"{text!r} is no share of the backbone's parameters; write a percentage above 0, e.g. 1%")


def size(text: str) -> int:
    """``500k``, ``1.5MB``, ``8GB``, ``2GiB`` → bytes; k, M and G are powers of 1000, Ki, Mi and Gi of 1024.

    Raises:
        OptionError: anything else.
    """
    found = re.fullmatch(_NUMBER + r"\s*([kKmMgG]i?)?[bB]?", text.strip())
    value = float(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0.0
    return int(_positive(value, f"{text!r} is not a size; write bytes above 0, e.g. 500k, 1.5MB or 8GB"))


def ratio(text: str) -> float:
    """``1.5x`` → 1.5.

    Raises:
        OptionError: anything else.
    """
    found = re.fullmatch(_NUMBER + r"\s*[xX×]", text.strip())
    value = float(found[1]) if found else 0.0
    return _positive(value, f"{text!r} is no multiple of the step of heads only; write one above 0, e.g. 1.5x")


def _positive(value: float, otherwise: str) -> float:
    if not 0 < value < math.inf:
        raise OptionError(otherwise)
    return value
