"""Where the bundle lies that somebody names: a folder as it is, or an address of the Hub, whose files are fetched.

Whoever takes bundles' paths from people asks here first; behind it there are only folders. Nothing that a file or a
request names comes here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.bundles.bundle_json import DESCRIPTION, WEIGHTS, read_bundle_json
from garnish.files.checksums import SUMS
from garnish.files.strict_json import MOST_BYTES
from garnish.hub.address import HubAddress, is_hub

#: Largest list of digests in a bundle, bytes: of three files.
_MOST_SUMS = 2**16
#: Largest weights of a bundle, bytes, as :mod:`garnish.bundles.tensors` has it.
MOST_WEIGHTS = 16 * 2**30
#: Names that belong to a repository of a bundle beside its own files.
_USUAL = ("README.md", ".gitattributes")


@final
@dataclass(frozen=True)
class FetchedBundle:
    """A bundle of the Hub in the local cache.

    Attributes:
        folder: where it lies.
        address: with the commit as its revision.
        others: how many other files the repository has, which were left alone; None: not known without the network.
        named: some of their names.
    """

    folder: Path
    address: HubAddress
    others: int | None
    named: tuple[str, ...]


def given_bundle(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A bundle's path as it is given, or the folder that ``hub:user/name`` was fetched to.

    Raises:
        OptionError: no address. HubError: as :func:`garnish.hub.download.download`. BundleError: its description is
            damaged; the weights are checked by whoever reads them.
    """
    return fetch_bundle(HubAddress.parse(path)).folder if is_hub(path) else path


def fetch_bundle(address: HubAddress) -> FetchedBundle:
    """Fetch a bundle's own files, its description first, which says how large the weights are.

    Raises:
        OptionError, HubError, BundleError: as :func:`given_bundle`.
    """
    from garnish.hub.download import WantedFile, download  # its client takes a second to import

    told = {DESCRIPTION: WantedFile(MOST_BYTES), SUMS: WantedFile(_MOST_SUMS, needed=False)}
    first = download(address, told, known=(WEIGHTS, *_USUAL))
    size = min(read_bundle_json(first.folder)["sizes"]["weights_bytes"], MOST_WEIGHTS)
    whole = download(first.address, {**told, WEIGHTS: WantedFile(size)}, known=_USUAL)
    return FetchedBundle(whole.folder, whole.address, first.others, first.named)
