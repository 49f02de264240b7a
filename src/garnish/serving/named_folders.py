"""The folders that ``garnish serve`` is given, found and looked at before anything is imported that takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from garnish.bundles.bundle_json import BEST, bundle_of_run, read_bundle_json
from garnish.bundles.given_bundle import given_bundle
from garnish.errors import BundleError, OptionError, shown
from garnish.hub.address import HubAddress, hub_hint, is_hub
from garnish.serving.upload_folder import check_bundle_name


def named_folders(words: list[str]) -> dict[str, Path]:
    """``NAME=FOLDER`` or ``FOLDER``, which is named as itself; of a run's folder or its ``best`` the best, as the run.

    ``hub:user/name`` in place of a folder is fetched, and named as its repository. These are words of who starts a
    server: requests name bundles, never folders or addresses.

    Raises:
        OptionError: a name twice. BundleError: no such folder, or a name that no bundle can have. HubError: the Hub
            refuses, or cannot be reached.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        if is_hub(word):
            name, folder = HubAddress.parse(word).name, Path(given_bundle(word))
        elif equals and is_hub(rest):
            folder = Path(given_bundle(rest))
        elif equals and not Path(word).exists():
            folder = bundle_of_run(rest, "serve: bundle")
        else:
            folder = bundle_of_run(word, "serve: bundle")
            here = folder.absolute()
            name = here.parent.name if here.name == BEST else here.name
        if not folder.is_dir():
            raise BundleError(
                f"serve: {shown(str(folder))} is no folder; give a bundle, or NAME=FOLDER{hub_hint(folder)}"
            )
        check_bundle_name(name)
        if name in found:
            raise OptionError(f"serve: two bundles are called {shown(name)}; give one as NAME=FOLDER")
        found[name] = folder
    return found


def check_one_trunk(folders: Mapping[str, Path]) -> None:
    """Read the descriptions of bundles, which takes milliseconds, so that no trunk is built for what is none.

    Raises:
        BundleError: a folder that holds none, a damaged one, or one of another trunk than the first.
    """
    first: tuple[Path, str, str] | None = None
    for folder in folders.values():
        trunk = read_bundle_json(folder)["backbone"]
        own = (folder, trunk["name"], trunk["fingerprint"])
        first = first or own
        if own[1:] != first[1:]:
            what = own[1] if own[1] != first[1] else f"another {own[1]} (fingerprint {own[2][:12]})"
            more = "" if own[1] != first[1] else f" (fingerprint {first[2][:12]})"
            raise BundleError(
                f"serve: {folder} belongs to backbone {what}, and this server's trunk is {first[1]}{more}, of"
                f" {first[0]}: serve it from another server, or train it on this trunk"
            )
