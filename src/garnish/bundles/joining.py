"""Whether several bundles can become one model: those of one backbone, whose tasks have different names."""

from __future__ import annotations

from collections.abc import Sequence

from garnish.bundles.bundle_json import BundleFacts
from garnish.errors import BundleError
from garnish.hub.address import cached_address


def check_joinable(read: Sequence[tuple[str, BundleFacts]]) -> None:
    """Raise BundleError unless all bundles belong to one backbone and all task names differ.

    Args:
        read: places, which are named by their address if they lie in the Hub's cache, and descriptions.
    """
    read = [(str(cached_address(where) or where), facts) for where, facts in read]
    where, first = read[0]
    taken: dict[str, str] = dict.fromkeys(first["tasks"], where)
    for other, facts in read[1:]:
        for key in ("name", "options", "taps", "fingerprint"):
            ours, theirs = first["backbone"].get(key, "stage"), facts["backbone"].get(key, "stage")
            if ours != theirs:
                raise BundleError(
                    f"{other}: belongs to another backbone than {where} ({key} {_short(theirs)}, not {_short(ours)}); "
                    "only bundles of one backbone can be joined"
                )
        for task in facts["tasks"]:
            if task in taken:
                raise BundleError(
                    f"{other}: task {task!r} is in {taken[task]} too; load one, and add the other with"
                    f" model.load(..., names={{{task!r}: 'other'}})"
                )
            taken[task] = other


def _short(value: object) -> str:
    """The first twelve digits of a fingerprint, any other value unchanged."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
