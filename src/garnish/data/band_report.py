"""What a look through a data set says of its bands: a table beside what a trunk expects, and warnings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.data.folder import FolderDataset
from garnish.data.picture_reading import left_unread
from garnish.data.subset import chosen
from garnish.errors import GarnishError
from garnish.files.band_names import RED_GREEN_BLUE
from garnish.pictures.band_counts import BandCounts
from garnish.pictures.bands import Bands
from garnish.pictures.open_raster import open_raster

#: Pictures whose headers are compared at most, evenly spaced.
_MOST_HEADERS = 200
#: Spreads of the trunk's pictures that the mean of a colour may lie away from theirs before it is told.
_FAR = 1.5


@final
@dataclass(frozen=True)
class BandFacts:
    """One band over the pictures that were checked, in numbers that models take: 0 and 1 are the ends of the range.

    Attributes:
        minimum, maximum, mean, std: of the pixels with data; NaN where there are none.
        missing: share of pixels without data, 0 … 1.
        far: share of the pixels with data that lie more than a whole range outside 0 … 1.
        expected: mean and standard deviation of this plane in the pictures that the trunk was pretrained on; None: no
            trunk is known, or the band is not red, green or blue and is normalised by the set's own numbers.
    """

    minimum: float
    maximum: float
    mean: float
    std: float
    missing: float
    far: float
    expected: tuple[float, float] | None = None


def band_facts(
    counts: BandCounts, bands: Bands, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
) -> dict[str, BandFacts]:
    """Band → what was counted of it.

    Args:
        counts: over the pictures.
        bands: of the set.
        mean: of the trunk's red, green and blue; empty: no trunk is known.
        std: likewise.
    """
    of_trunk = {at: (mean[k], std[k]) for k, at in enumerate(bands.rgb) if at is not None and mean}
    nan = float("nan")
    found = {}
    for at, name in enumerate(bands.names):
        held = int(counts.measured[at])
        low, high, mean_of, std_of = (
            (counts.lowest[at], counts.highest[at], counts.mean[at], counts.std[at]) if held else (nan,) * 4
        )
        found[name] = BandFacts(
            minimum=float(low),
            maximum=float(high),
            mean=float(mean_of),
            std=float(std_of),
            missing=float(counts.missing[at]),
            far=float(counts.far[at] / max(held, 1)),
            expected=of_trunk.get(at),
        )
    return found


def band_lines(facts: Mapping[str, BandFacts]) -> list[str]:
    """A table as lines."""
    lines = [f"  {'band':<16} {'min':>9} {'max':>9} {'mean':>9} {'spread':>9} {'no data':>8}  trunk expects"]
    for name, one in facts.items():
        numbers = " ".join(f"{x:9.4g}" for x in (one.minimum, one.maximum, one.mean, one.std))
        told = "" if one.expected is None else f"0 … 1, mean {one.expected[0]:.3g}, spread {one.expected[1]:.3g}"
        lines.append(f"  {name:<16} {numbers} {one.missing:8.2%}  {told}".rstrip())
    if not any(one.expected for one in facts.values()):
        lines[0] = lines[0].removesuffix("  trunk expects")
    return lines


def odd_bands(facts: Mapping[str, BandFacts], plain: bool, *, has_trunk: bool = False) -> Iterator[str]:
    """Warnings, one line each.

    Args:
        facts: of each band.
        plain: whether pictures are 8-bit RGB, whose range nobody states.
        has_trunk: whether it is known what a trunk expects.
    """
    if has_trunk and not any(one.expected for one in facts.values()):
        alike = [name for name in facts if name.lower() in RED_GREEN_BLUE]
        hint = f"; write {alike[0]!r} as {alike[0].lower()!r}" if alike else "; name those that are there so"
        yield (
            "no band is called red, green or blue, so all are met by filters that begin at zero or at a mean, and"
            f" nothing that the trunk learnt of colours is used{hint}"
        )
    for name, one in facts.items():
        if one.missing == 1:
            yield f"band {name}: no pixel has data; correct `channels: {{nodata: …}}` or leave the band out"
            continue
        if one.minimum == one.maximum:
            yield f"band {name}: every pixel is {one.minimum:.4g}, so it tells nothing; leave it out"
        elif one.far:
            yield (
                f"band {name}: {one.far:.2%} of its pixels lie more than a whole range outside 0 … 1 ({one.minimum:.4g}"
                f" to {one.maximum:.4g}); correct `channels: {{range: …}}`, or state the number of no data (`nodata`)"
            )
        elif one.expected and abs(one.mean - one.expected[0]) > _FAR * one.expected[1]:
            told = "" if plain else "; choose `channels: {range: …}` so that pictures look as photographs do"
            yield (
                f"band {name}: mean {one.mean:.3g}, but the trunk was pretrained on pictures of mean"
                f" {one.expected[0]:.3g} and spread {one.expected[1]:.3g}{told}"
            )


def of_headers(part: FolderDataset) -> Iterator[tuple[str, str]]:
    """(severity, message) about what the headers of pictures say and nobody heeds, and where they disagree."""
    if part.bands.is_rgb or not len(part):
        return
    with contextlib.suppress(GarnishError):  # which is an error of the picture
        if line := left_unread(part.picture_files(0), part.bands):
            yield "warning", line
    if part.bands.range is None and (line := _other_depths(part)):
        yield "warning", line


def _other_depths(part: FolderDataset) -> str:
    """Pictures of different types where nobody states a range, so that equal numbers become different ones."""
    found: dict[tuple[str, ...], Path] = {}
    for index in chosen(len(part), _MOST_HEADERS):
        files = part.picture_files(index)
        with contextlib.suppress(GarnishError):
            depths = []
            for file in files:
                with open_raster(file, len(part.bands.names) if len(files) == 1 else 1) as raster:
                    depths.append(raster.facts.dtype)
            found.setdefault(tuple(depths), files[0])
    if len(found) < 2:
        return ""
    (one, first), (other, second) = list(found.items())[:2]
    return (
        f"{second}: holds {', '.join(dict.fromkeys(other))}, {first} {', '.join(dict.fromkeys(one))}, and each is read"
        " to the ends of its own type, so equal numbers become different ones; state `channels: {range: [LOW, HIGH]}`"
    )
