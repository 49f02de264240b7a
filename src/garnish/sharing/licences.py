"""Which licence a card states: what the pusher says, held against those of the trunk's weights and of the data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import final

from garnish.backbones.weights import is_non_commercial
from garnish.bundles.licences_told import licence_texts_joined
from garnish.engine.stated_licences import StatedLicences
from garnish.errors import OptionError, one_line, shown

#: The common ones of the Hub's identifiers; another is a name beside ``other``, if it is asked for as one.
KNOWN = (
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "cc0-1.0", "cc-by-2.0",
    "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-2.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "epl-2.0",
    "eupl-1.2", "etalab-2.0", "isc", "zlib", "bsl-1.0", "artistic-2.0", "unlicense", "wtfpl", "odbl", "odc-by", "pddl",
    "cdla-permissive-2.0", "cdla-sharing-1.0", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "unknown",
)  # fmt: skip
#: Before the name of a licence that the Hub has no identifier for.
_OTHERS = ("other:", "LicenseRef-")
#: Says that nothing is known; the Hub has the same word.
UNKNOWN = "unknown"
_SAME_TERMS = re.compile(r"(?<![a-z])(?:a?gpl|share[- ]?alike|sa)(?![a-z])")


@final
@dataclass(frozen=True)
class StatedLicence:
    """What a card says of licences.

    Attributes:
        identifier: of the Hub's list, or ``other``.
        name: of the licence where the identifier is ``other``, in the Hub's form; else None.
        trunk: of the trunk's weights, as the bundle says.
        data: of the pictures, as the bundle and the pusher say; None: not stated.
        non_commercial: whether one of them forbids commercial use, which binds what was trained.
        because: which: "the backbone's weights", "the training pictures", "the bundle as it was published", joined by
            "and".
        same_terms: whether one of them asks for its own terms on what is made from it.
        words: of the bundle, as it was stated; None: unknown.
    """

    identifier: str
    name: str | None
    trunk: str
    data: str | None
    non_commercial: bool
    because: str
    same_terms: bool
    words: str | None = None

    @property
    def text(self) -> str:
        """The identifier, or the name."""
        return self.name or self.identifier


def stated_licence(
    asked: str | None, trunk: str, data: str | None, *, flagged: bool, earlier: StatedLicences | None = None
) -> StatedLicence:
    """The licence of what is pushed.

    Args:
        asked: what the pusher states: an identifier of the Hub's, or ``other:NAME``; None: what the bundle states, else
            what follows from the other two, else "unknown".
        trunk: of the trunk's weights.
        data: of the pictures; None: not stated.
        flagged: whether the bundle says that its trunk's weights are non-commercial.
        earlier: what the bundle states, of who published it before; what ``data`` says is added to its own.

    Raises:
        OptionError: a licence that allows commercial use, where the trunk, the data or the bundle forbid it; one that
            is no identifier.
    """
    earlier = StatedLicences() if earlier is None else earlier
    data = licence_texts_joined((earlier.data, data))
    binding = {
        "the backbone's weights": flagged or is_non_commercial(trunk),
        "the training pictures": data is not None and is_non_commercial(data),
        "the bundle as it was published": earlier.bundle is not None and is_non_commercial(earlier.bundle),
    }
    because = " and ".join(name for name, binds in binding.items() if binds)
    if asked is not None and because and not is_non_commercial(asked):
        told = (trunk, data or "not stated", *(() if earlier.bundle is None else (earlier.bundle,)))
        texts = " / ".join(one_line(text, 60) for text in told)
        raise OptionError(
            f"push: --licence {shown(asked)} allows commercial use, which {because} forbid ({texts}); state one that"
            " forbids it too, such as cc-by-nc-4.0, or leave --licence out"
        )
    sources = [text for text in (trunk, data, earlier.bundle) if text is not None]
    chosen = _inherited(trunk, data, earlier.bundle, bool(because)) if asked is None else _asked(asked)
    lower = chosen.strip().lower()
    identifier = lower if lower in KNOWN else "other"
    return StatedLicence(
        identifier,
        None if identifier != "other" else _slug(chosen),
        trunk,
        data,
        bool(because),
        because,
        any(_SAME_TERMS.search(text.lower()) for text in sources),
        None if identifier == UNKNOWN else chosen.strip(),
    )


def _asked(asked: str) -> str:
    """An identifier in the Hub's spelling, or the name of another licence without what marks it as one."""
    for mark in _OTHERS:
        if asked.lower().startswith(mark.lower()):
            return asked[len(mark) :]
    plain = "-".join(asked.lower().split())
    if plain in KNOWN:
        return plain
    near = [name for name in KNOWN if plain and name.startswith(plain)] or get_close_matches(plain, KNOWN, 1, 0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    raise OptionError(
        f"push: --licence {shown(asked)} is none of the Hub's identifiers that are known here; {meant}write one such as"
        " mit, apache-2.0 or cc-by-nc-4.0, or other:NAME for another licence"
    )


def _inherited(trunk: str, data: str | None, earlier: str | None, non_commercial: bool) -> str:
    """The licence that follows: the one that the bundle has, or both have, or the one that forbids most."""
    if earlier is not None and (is_non_commercial(earlier) or not non_commercial):
        return earlier
    found = [text.strip().lower() for text in (trunk, data or UNKNOWN)]
    if non_commercial:
        strict = [text for text in found if is_non_commercial(text) and text in KNOWN]
        return strict[0] if strict else "non-commercial"
    return found[0] if found[0] == found[1] and found[0] in KNOWN else UNKNOWN


def _slug(name: str) -> str:
    """A licence's name as the Hub takes it: lower case letters, digits, dots and dashes."""
    made = re.sub(r"[^a-z0-9.]+", "-", name.lower())[:60].strip("-.")
    if not made:
        raise OptionError(f"push: --licence {shown(name)} has no letters; give an identifier such as apache-2.0")
    return made
