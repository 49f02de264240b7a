"""What files call their bands, and whether they lie where a reader takes them to be.

GDAL writes texts into tag 42112 of a TIFF, XML with an item for each (GDAL's documentation of its GTiff driver).
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

GDAL_METADATA = 42112
RED_GREEN_BLUE = ("red", "green", "blue")
#: What Sentinel-2 calls the three colours.
SENTINEL = {"B02": "blue", "B03": "green", "B04": "red"}
_ITEM = re.compile(r"<Item ([^<>]*)>([^<>]*)</Item>")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


def band_items(text: str) -> dict[tuple[int, str], str]:
    """(band from 0, role) → text; roles are ``description``, a band's name, ``scale`` and ``offset``."""
    found = {}
    for inside, value in _ITEM.findall(text):
        told = dict(_ATTRIBUTE.findall(inside))
        if "role" in told and told.get("sample", "").isdecimal() and len(told["sample"]) < 6:
            found[int(told["sample"]), told["role"]] = html.unescape(html.unescape(value))  # GDAL escapes twice
    return found


def misplaced_band(
    own: Sequence[str | None], names: Sequence[str], among: Sequence[str] | None = None
) -> tuple[str, str] | None:
    """The first band of a file whose own name is that of another band: (own name, name that it stands for).

    Capitals and spaces around a name do not matter (``Blue`` is blue); names that are no band's say nothing.

    Args:
        own: what the file calls its bands; None: nothing.
        names: what they are taken to be.
        among: all bands of the picture, where the file holds some of them; None: ``names``.
    """
    known = {name.strip().casefold() for name in among or names}
    for called, name in zip(own, names, strict=False):
        key = "" if called is None else called.strip().casefold()
        if called is not None and called != name and key != name.strip().casefold() and key in known:
            return called, name
    return None
