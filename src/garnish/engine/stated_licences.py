"""Licences that tasks came with, beside that of the trunk's weights: they go where the tasks go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class StatedLicences:
    """What a bundle says of licences, in the words of who published it.

    Attributes:
        bundle: of what was trained; None: not stated.
        data: of the training pictures; None: not stated.
    """

    bundle: str | None = None
    data: str | None = None
