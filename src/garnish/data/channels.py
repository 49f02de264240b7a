"""The keys ``channels`` and ``images`` of a description: what bands are called, and in which files they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from garnish import registry
from garnish.checking.plain_data import Json
from garnish.data.patterns import checked_pattern, filled
from garnish.errors import OptionError, one_line, shown, suggest
from garnish.files.pictures import PICTURE_SUFFIXES
from garnish.pictures.bands import MOST_BANDS, Bands

#: Suffixes of the files that hold pictures where ``channels`` is stated.
BAND_SUFFIXES = (*PICTURE_SUFFIXES, ".npy", ".npz")


def read_channels(given: Json, where: str) -> Bands:
    """Bands from names, from a number (then they are called band1, band2, …), or from the fields of ``Bands``.

    Raises:
        OptionError: anything else, or an option that ``Bands`` refuses.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        if not 1 <= given <= MOST_BANDS:
            raise OptionError(f"{where}: {given}; pictures have 1 to {MOST_BANDS} bands")
        given = [f"band{number}" for number in range(1, given + 1)]
    if isinstance(given, list | tuple):
        given = {"names": list(given)}
    if not isinstance(given, Mapping):
        raise OptionError(
            f"{where}: {shown(given)}; name the bands, e.g. [blue, green, red, nir], or say how many there are, or"
            " write {names: …, range: [LOW, HIGH], nodata: …}"
        )
    options = dict(given)
    if isinstance(options.get("names"), int):
        options["names"] = list(read_channels(options["names"], f"{where}.names").names)
    try:
        return registry.construct(Bands, options, where=where)
    except OptionError as error:  # the class calls itself `channels`, and the place is said once
        raise OptionError(f"{where}: {str(error).removeprefix(where).removeprefix('channels').lstrip(':. ')}") from None


def band_patterns(images: Json, bands: Bands | None, where: str) -> dict[str, str]:
    """Band → the pattern of the files that hold it, in the order of the bands; empty: one file holds them all.

    Args:
        images: as written: a pattern (with ``{band}``: one file a band), or a mapping band → pattern.
        bands: what ``channels`` states; None: nothing.
        where: prefix of messages.

    Raises:
        OptionError: several files and no ``channels``, names that are not those of ``channels``, or a pattern from
            which the files of the other bands cannot be told.
    """
    if isinstance(images, str) and "{band}" not in images:
        return {}
    if not isinstance(images, str | Mapping):
        return {}  # which the caller refuses
    if bands is None:
        named = f"[{', '.join(map(str, images))}]" if isinstance(images, Mapping) else "[NAME, …]"
        raise OptionError(
            f"{where}: gives a file for each band; state their order by `channels: {one_line(named, 200)}`"
        )
    if isinstance(images, str):
        found = {name: filled(images, band=name) for name in bands.names}
    else:
        for name in images:
            if name not in bands.names:
                raise OptionError(f"{where}: {shown(name)} is none of `channels`{suggest(str(name), bands.names)}")
        if absent := [name for name in bands.names if name not in images]:
            raise OptionError(f"{where}: has no pattern for band {absent[0]!r} of `channels`; add it, or leave it out")
        found = {name: images[name] for name in bands.names}
    for name, pattern in found.items():
        if not isinstance(pattern, str) or "{name}" not in pattern or any(x in pattern for x in "*?["):
            raise OptionError(
                f"{where}: band {name!r}: {shown(pattern)}; write a pattern with {{name}} for what differs between"
                " pictures, and without * ? [, so that each band's file follows from the name"
            )
        if PurePosixPath(pattern).suffix.lower() not in BAND_SUFFIXES:
            raise OptionError(f"{where}: band {name!r}: {shown(pattern)} ends in none of {' '.join(BAND_SUFFIXES)}")
        checked_pattern(pattern, where)
    if len(set(found.values())) < len(found):
        raise OptionError(f"{where}: two bands have one pattern; give each a file of its own, or name one file for all")
    return found
