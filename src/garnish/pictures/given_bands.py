"""``GivenBands``: which bands pictures have, and how those that no trunk knows are normalised and begin."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal, final

from garnish.checking.arguments import Options
from garnish.checking.plain_data import Json, Reading, read_as
from garnish.errors import GarnishError, OptionError
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands
from garnish.registry import plain

#: What the filters of further bands begin as: zeros, so that the start equals the trunk, or the mean of its own three.
Extra = Literal["zero", "mean"]


@final
@dataclass(frozen=True, kw_only=True)
class GivenBands(Options):
    """The pictures that some tasks take.

    Attributes:
        bands: of the pictures; red, green and blue are what a pretrained trunk knows, by its own mean and std.
        statistics: of every band over the training pictures; the bands beside red, green and blue are normalised by
            them. None: there are no such bands.
        extra: what the filters of those bands begin as.

    Raises:
        OptionError: bands beside red, green and blue without statistics, statistics of other bands, a band that is
            constant or without data, or an option that would have no effect.
    """

    bands: Bands = field(default_factory=Bands)
    statistics: BandStatistics | None = None
    extra: Extra = "zero"

    def __post_init__(self) -> None:
        names, known = self.bands.names, self.statistics
        others = [names[place] for place in self.bands.others]
        if known is None and others:
            raise OptionError(
                f"statistics: no trunk knows the mean of {_listed(others)}; give statistics=gn.BandStatistics(…) of the"
                " training pictures"
            )
        if known is not None and self.bands.is_rgb:
            raise OptionError(
                "statistics: 8-bit red, green and blue are normalised as the trunk was trained; leave them out"
            )
        if known is not None and len(known.mean) != len(names):
            raise OptionError(
                f"statistics: of {len(known.mean)} bands, but {len(names)} are given; give one number each"
            )
        if self.extra != "zero" and not others:
            raise OptionError(f"extra: {self.extra}, but there is no band beside red, green and blue; leave it out")
        if known is None:
            return
        for place in self.bands.others:
            if known.std[place] <= 0:
                what = "holds no data" if known.missing[place] >= 1 else "is constant"
                raise OptionError(f"statistics: band {names[place]!r} {what} (its std is 0); leave it out of the bands")

    @property
    def key(self) -> Hashable:
        """Equal for those that make the same input of the same pictures; None: 8-bit RGB."""
        if self.bands.is_rgb:
            return None
        known = self.statistics
        return self.bands, *((known.mean[place], known.std[place]) for place in self.bands.others if known is not None)

    def facts(self) -> dict[str, Json]:
        """As JSON holds it, for :meth:`read`."""
        return {**plain(self), "bands": self.bands.facts()}

    @classmethod
    def read(cls, facts: Mapping[str, Json], at: str, error: type[GarnishError]) -> GivenBands:
        """What :meth:`facts` has told.

        Args:
            facts: of a stranger.
            at: their place, for messages.
            error: what is raised; OptionError where entries do not fit each other.
        """
        told, bands = dict(facts), facts.get("bands")
        if isinstance(bands, Mapping):
            told["bands"] = Bands.read(bands, f"{at}.bands", error)
        return read_as(told, cls, at, Reading(error=error))


def _listed(names: list[str]) -> str:
    """Some names; of many the first five."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more bands" if len(names) > 5 else "")
