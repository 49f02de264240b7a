"""``Accept``: which of the types that there are an answer may have (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from garnish.errors import shown
from garnish.serving.http_refusals import HttpRefusal

#: Ranges of a header that are looked at; browsers send ten.
_MOST_RANGES = 64
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_RANGE = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*((?:;[^,]*)?)")
_QUALITY = re.compile(r";\s*[qQ]\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)")


def acceptable(header: str, offered: Sequence[str]) -> list[str]:
    """The offered types that a header takes, the dearest first, equal ones in the order offered.

    Args:
        header: ``Accept``; empty: anything. Ranges that cannot be read count as absent; ``q`` as 1 where it is none.
        offered: ``type/subtype`` in lower case.

    Raises:
        HttpRefusal: 406, no type of these.
    """
    if not header.strip():
        return list(offered)
    ranges = [found for part in header.split(",")[:_MOST_RANGES] if (found := _range(part)) is not None]
    dear = {name: _quality_of(name, ranges) for name in offered}
    taken = sorted((name for name in offered if dear[name] > 0), key=lambda name: -dear[name])
    if not taken:
        raise HttpRefusal(406, f"Accept: {shown(header)} takes none of {', '.join(offered)}; name one of them")
    return taken


def _range(text: str) -> tuple[str, str, float] | None:
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    quality = _QUALITY.search(found[3])
    return found[1].lower(), found[2].lower(), float(quality[1]) if quality else 1.0


def _quality_of(name: str, ranges: Sequence[tuple[str, str, float]]) -> float:
    """What the most exact range that covers a type says of it."""
    kind, subtype = name.split("/")
    for covers in ((kind, subtype), (kind, "*"), ("*", "*")):
        found = [quality for *range_, quality in ranges if tuple(range_) == covers]
        if found:
            return max(found)
    return 0.0
