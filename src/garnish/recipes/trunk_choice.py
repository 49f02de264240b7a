"""The section ``trunk`` of a recipe: how the backbone meets bands that it was not pretrained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from garnish.pictures.given_bands import Extra


@final
@dataclass(frozen=True, kw_only=True)
class TrunkChoice:
    """The section ``trunk``; it acts where the data have other bands than red, green and blue.

    Attributes:
        extra: what the filters of those bands begin as: "zero", so that the start equals the trunk, or "mean".
    """

    extra: Extra = "zero"
