"""``garnish.pull``: a bundle of the Hub, fetched, checked and, if asked, copied to a folder."""

from __future__ import annotations

import os
from pathlib import Path

from garnish.bundles.bundle_json import DESCRIPTION, WEIGHTS, BundleFacts, read_bundle_json
from garnish.bundles.given_bundle import FetchedBundle, fetch_bundle
from garnish.bundles.origin import ORIGIN, origin_bytes
from garnish.bundles.skeleton import whole_bundle
from garnish.checking.arguments import checked
from garnish.errors import BundleError, OptionError
from garnish.files.atomic import present, write_folder, writing
from garnish.files.checksums import with_sums
from garnish.files.path_text import given_path
from garnish.files.regular import read_regular
from garnish.files.strict_json import MOST_BYTES
from garnish.hub.address import HubAddress, is_hub


@checked
def pull(repository: str, *, revision: str | None = None, out: str | os.PathLike[str] | None = None) -> Path:
    """Fetch a bundle from the Hub into its cache, check it, and give its folder.

    Args:
        repository: ``user/name``, ``user/name/folder``, with ``hub:`` in front or not, ``@revision`` behind or not.
        revision: a branch, a tag or a commit; None: that of the address, else the branch ``main``.
        out: a folder to copy it to, new, empty or an earlier bundle; None: it stays in the cache.

    Returns:
        The folder: ``out``, or that in the cache, which :func:`garnish.load` takes as any other.

    Raises:
        OptionError: no address. HubError: no such repository, revision or bundle in it, no right to read it, sizes out
            of bounds, no network. BundleError: a damaged bundle, or a folder that holds something else; nothing is
            written then.

    Example:
        >>> gn.pull("scenes")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        garnish.errors.OptionError: 'scenes': no repository of the Hub is named; write hub:user/name, ...
    """
    return pull_bundle(HubAddress.parse(repository).at(revision), out)[0]


def pull_bundle(address: HubAddress, out: str | os.PathLike[str] | None) -> tuple[Path, FetchedBundle, BundleFacts]:
    """As :func:`pull`; also what was fetched, and the bundle's description."""
    place = None if out is None else _checked_place(out)
    found = fetch_bundle(address)
    facts, weights = whole_bundle(str(found.folder))
    if place is None:
        return found.folder, found, facts
    files = {
        **with_sums({WEIGHTS: weights, DESCRIPTION: read_regular(found.folder / DESCRIPTION, MOST_BYTES)}),
        ORIGIN: origin_bytes(found.address, facts),
    }
    with writing(f"{out}: the bundle", " or choose another folder; an earlier bundle there is untouched"):
        write_folder(place, files)
    return Path(os.fspath(place)), found, facts


def _checked_place(out: str | os.PathLike[str]) -> Path:
    """The folder to write to; raises BundleError if it holds something else than a bundle."""
    if is_hub(out):
        raise OptionError(f"{out}: --out is a folder on this machine; garnish push writes to the Hub")
    place = given_path(out, "pull: out")
    there = present(place)
    try:
        if there.exists() and not (there.is_dir() and not any(there.iterdir())):
            read_bundle_json(there)
    except (BundleError, OSError) as error:
        raise BundleError(f"{out}: exists and is not a bundle, so it is not replaced; choose another folder") from error
    return place
