"""The section ``trunk`` of a recipe: how the backbone meets bands that it was not pretrained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, final

from garnish.errors import shown
from garnish.pictures.given_bands import Extra

if TYPE_CHECKING:
    from garnish.data.dataset import Dataset
    from garnish.pictures.band_statistics import BandStatistics
    from garnish.pictures.bands import Bands
    from garnish.recipes.recipe import Recipe


@final
@dataclass(frozen=True, kw_only=True)
class TrunkChoice:
    """The section ``trunk``; it acts where the data have other bands than red, green and blue.

    Attributes:
        extra: what the filters of those bands begin as: "zero", so that the start equals the trunk, or "mean".
    """

    extra: Extra = "zero"


class _ForAdapt(TypedDict, total=False):
    """What ``garnish.adapt`` and ``Model.add`` take of bands."""

    bands: Bands
    statistics: BandStatistics
    extra: Extra


def trunk_choice(recipe: Recipe) -> TrunkChoice:
    """The section as it is written, or its defaults.

    Raises:
        OptionError: an option that there is not.
    """
    from garnish.registry import construct

    given = recipe.plain.get("trunk")
    if not isinstance(given, Mapping | None):
        raise recipe.fault("trunk", f"{shown(given)}; write e.g. trunk: {{extra: mean}}")
    return recipe.located(lambda: construct(TrunkChoice, given, where="trunk"), "trunk")


def bands_of_data(recipe: Recipe, data: Dataset) -> _ForAdapt:
    """What a model is told of the bands of its training pictures, which are counted here; nothing of 8-bit RGB.

    Raises:
        OptionError: ``trunk.extra`` where there is no band beside red, green and blue. DataError: a band that tells
            nothing.
    """
    extra = trunk_choice(recipe).extra
    if not data.bands.others and "extra" in (recipe.plain.get("trunk") or {}):
        raise recipe.fault(
            "trunk.extra", f"{extra}, but {data.name} has no band beside red, green and blue; leave it out"
        )
    if data.bands.is_rgb:
        return {}
    from garnish.data.measured_bands import band_statistics

    return {"bands": data.bands, "statistics": band_statistics(data), "extra": extra}
