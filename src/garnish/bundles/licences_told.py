"""What a bundle says of its own licence and that of its training pictures: ``extra.licences``.

It stands in ``bundle.json``, which the sums cover and every copy has, so that it is not lost on the way from one
repository, folder or model to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from garnish.backbones.weights import is_non_commercial
from garnish.bundles.bundle_json import BundleFacts
from garnish.checking.plain_data import Json
from garnish.engine.stated_licences import StatedLicences
from garnish.errors import one_line
from garnish.model.model import Model

#: The key of ``extra``.
LICENCES = "licences"
_BUNDLE, _DATA = "bundle", "data"
#: Characters of a text that are read, as of the licence of weights.
_MOST = 2000


def licences_told(facts: BundleFacts) -> StatedLicences:
    """The licences that a description states; what is no text there states nothing."""
    told = facts.get("extra", {}).get(LICENCES)
    if not isinstance(told, Mapping):
        return StatedLicences()
    return StatedLicences(_text(told.get(_BUNDLE)), _text(told.get(_DATA)))


def licences_to_tell(model: Model, tasks: Sequence[str]) -> dict[str, Json]:
    """The entry for tasks of a model; empty where nothing is stated of any."""
    found = [model.owner_of(task).root.licences for task in tasks]
    return licences_entry(licences_together(found))


def licences_entry(stated: StatedLicences) -> dict[str, Json]:
    """The entry of ``extra`` that states them; empty where there is nothing to state."""
    told: dict[str, Json] = {
        key: text for key, text in ((_BUNDLE, stated.bundle), (_DATA, stated.data)) if text is not None
    }
    return {LICENCES: told} if told else {}


def licences_together(stated: Iterable[StatedLicences]) -> StatedLicences:
    """Those of several bundles as one: each text once."""
    each = list(stated)
    return StatedLicences(
        licence_texts_joined(one.bundle for one in each), licence_texts_joined(one.data for one in each)
    )


def licence_texts_joined(texts: Iterable[str | None]) -> str | None:
    """Texts in one, each once, those that forbid commercial use first, so that no cut loses them."""
    found: dict[str, str] = {}
    for text in texts:
        if text is not None and text.strip():
            found.setdefault(text.strip().lower(), text.strip())
    return "; ".join(sorted(found.values(), key=lambda text: not is_non_commercial(text))) or None


def binding(facts: BundleFacts) -> list[str]:
    """Which licences of a bundle forbid commercial use, in words: of the backbone's weights, pictures, the bundle."""
    trunk, stated = facts["backbone"], licences_told(facts)
    found = {
        "the backbone's weights": trunk["non_commercial"] or is_non_commercial(trunk["licence"]),
        "the training pictures": stated.data is not None and is_non_commercial(stated.data),
        "the bundle as it was published": stated.bundle is not None and is_non_commercial(stated.bundle),
    }
    return [name for name, binds in found.items() if binds]


def _text(found: Json) -> str | None:
    return one_line(found, _MOST) if isinstance(found, str) and found.strip() else None
