"""Where a bundle on the disk came from: its place in the Hub's cache, or ``hub.json`` beside a copy of one."""

from __future__ import annotations

import json
import os

from garnish.bundles.bundle_json import BundleFacts, bundle_folder
from garnish.errors import GarnishError
from garnish.files.strict_json import read_json
from garnish.hub.address import HubAddress, cached_address

#: Beside a bundle that was copied from the Hub.
ORIGIN = "hub.json"


def origin_bytes(address: HubAddress, facts: BundleFacts) -> bytes:
    """``hub.json`` of a copy: the address with its commit, and the digest of the weights that it speaks of."""
    told = {"from": str(address), "weights_sha256": facts["sha256"]}
    return f"{json.dumps(told, indent=2)}\n".encode()


def origin_of(path: str | os.PathLike[str], facts: BundleFacts) -> str | None:
    """``hub:user/name@commit`` of a bundle that was fetched from there; None: of any other.

    A ``hub.json`` that speaks of other weights is of an earlier bundle in that folder, and one that cannot be read
    tells nothing; both count as none.

    Args:
        path: the bundle's folder.
        facts: its description.
    """
    cached = cached_address(path)
    if cached is not None:
        return str(cached)
    file = bundle_folder(path) / ORIGIN
    if not file.is_file():
        return None
    try:
        told = read_json(file, "origin", "pull the bundle again")
        if not isinstance(told, dict) or told.get("weights_sha256") != facts["sha256"]:
            return None
        return str(HubAddress.parse(str(told.get("from"))))
    except (GarnishError, OSError, RecursionError):
        return None
