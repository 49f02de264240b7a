"""Downloading the files of a bundle from the Hub, by name and within bounds, into the cache of huggingface_hub."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, final

from garnish.errors import HubError, one_line, plural, shown
from garnish.files.regular import read_regular
from garnish.hub.address import HubAddress
from garnish.hub.client import PATIENCE, hub_api, is_offline, silent
from garnish.hub.refusals import hub_errors

#: A branch may move while its files are fetched; then they are fetched anew, so often.
_MOST_TRIES = 3
#: Of a repository's revisions in the cache: how many are looked at, and told, and bytes of the file of one.
_MOST_LOOKED_AT, _MOST_TOLD, _MOST_REF = 1000, 3, 1000
_CACHE_OR_ONLINE = "unset it once, or give a folder"


@final
@dataclass(frozen=True)
class WantedFile:
    """A file that a bundle has.

    Attributes:
        most: bytes that it may have.
        needed: whether there is no bundle without it.
    """

    most: int
    needed: bool = True


@final
@dataclass(frozen=True)
class Downloaded:
    """Files of one commit in the cache.

    Attributes:
        folder: where they lie, with links to the cache's blobs.
        address: with the commit as its revision.
        files: name → bytes, of those that were wanted.
        others: how many other files the repository has, which were left alone; None: not known without the network.
        named: some of their names, as they can be shown.
    """

    folder: Path
    address: HubAddress
    files: Mapping[str, int]
    others: int | None
    named: tuple[str, ...] = ()


def download(address: HubAddress, wanted: Mapping[str, WantedFile], *, known: Collection[str] = ()) -> Downloaded:
    """Fetch files of a repository at one commit; what is in the cache already is not fetched again.

    Sizes are held against the bounds before a file is asked for, while it arrives, and against what was announced when
    it is there. A whole commit that the cache has is read without the network.

    Args:
        address: of the bundle.
        wanted: file name → its bounds; no other file is fetched.
        known: names that are not counted as others, though they are not fetched.

    Raises:
        HubError: no such repository, revision or file, no right to read it, sizes out of bounds or other than
            announced, no network, or offline and not in the cache. Nothing that is half there remains.
    """
    if address.is_commit or is_offline():
        found = _cached(address, wanted)
        if found is not None:
            return found
    offline = f"{_CACHE_OR_ONLINE}{_told_cached(address, wanted)}" if is_offline() else _CACHE_OR_ONLINE
    with hub_errors(str(address), offline=offline, revision=address.revision), silent():
        for _ in range(_MOST_TRIES):
            found = _fetched(address, wanted, known)
            if found is not None:
                return found
    raise HubError(f"{address}: changed again and again while it was fetched; name a commit, or try again")


def _cached(address: HubAddress, wanted: Mapping[str, WantedFile]) -> Downloaded | None:
    """The files of an address where the cache has all that a bundle needs."""
    from huggingface_hub import try_to_load_from_cache

    with hub_errors(str(address)):
        paths = {
            name: try_to_load_from_cache(address.repository, address.file(name), revision=address.revision)
            for name in wanted
        }
    there = {name: Path(path) for name, path in paths.items() if isinstance(path, str)}
    if any(file.needed and name not in there for name, file in wanted.items()):
        return None
    return _downloaded(address, there, others=None, named=())


def _told_cached(address: HubAddress, wanted: Mapping[str, WantedFile]) -> str:
    """Which revisions of a repository the cache has with all that a bundle needs: branches first, and then commits."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE) / f"models--{address.repository.replace('/', '--')}"
    needed = [address.file(name) for name, file in wanted.items() if file.needed]

    def is_whole(commit: str) -> bool:
        return all((place / "snapshots" / commit / name).is_file() for name in needed)

    found: list[str] = []
    with suppress(OSError):  # there is no such folder, or it is being changed
        for branch in islice((place / "refs").iterdir(), _MOST_LOOKED_AT):
            commit = read_regular(branch, _MOST_REF).decode("utf-8", "replace").strip() if branch.is_file() else ""
            if commit.isalnum() and is_whole(commit):
                found.append(branch.name)
    with suppress(OSError):
        commits = islice((place / "snapshots").iterdir(), _MOST_LOOKED_AT)
        found += [folder.name for folder in commits if is_whole(folder.name)]
    if not found:
        return ""
    listed = ", ".join(f"@{one_line(name, 40)}" for name in found[:_MOST_TOLD])
    return f"; cached of it: {listed}{', …' if len(found) > _MOST_TOLD else ''}"


def _fetched(address: HubAddress, wanted: Mapping[str, WantedFile], known: Collection[str]) -> Downloaded | None:
    """The files as the Hub has them; None: the branch moved meanwhile."""
    info = hub_api().model_info(address.repository, revision=address.revision, files_metadata=True, timeout=PATIENCE)
    commit = info.sha
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    if commit is None:
        raise HubError(f"{address}: the Hub names no commit of it; try again")
    names = {name: address.file(name) for name in wanted}
    for name, file in wanted.items():
        _check_announced(address, names[name], name, file, sizes)
    there: dict[str, Path] = {}
    for name in wanted:
        if names[name] not in sizes:
            continue
        size = sizes[names[name]]
        # the first by the branch's name, which the cache remembers for when there is no network
        revision = (address.revision or "main") if not there else commit
        most = int(size or 0) if there else wanted[name].most  # which by then may be at another commit
        there[name] = Path(_get(address, names[name], revision, most))
        if _commit_of(there[name], names[name]) != commit:
            return None
        if (found := there[name].stat().st_size) != size:
            _forget(there[name])
            raise HubError(f"{address}: {name} has {found:,} bytes, and {size:,} were announced; try again")
    ours = {*names.values(), *map(address.file, known)}
    others = sorted(set(sizes) - ours)
    return _downloaded(address, there, len(others), tuple(one_line(name, 60) for name in others[:3]))


def _check_announced(
    address: HubAddress, path: str, name: str, file: WantedFile, sizes: Mapping[str, int | None]
) -> None:
    """Raise HubError unless a file is there with a size that its kind can have."""
    if path not in sizes:
        if not file.needed:
            return
        folders = sorted({other[: -len(name) - 1] for other in sizes if other.endswith(f"/{name}")})[:3]
        near = f"; there is one in its folder {one_line(folders[0], 80)}" if folders else ""
        raise HubError(
            f"{address}: is no bundle: it has no {path} among {plural(len(sizes), 'file')}{near}; "
            "name a repository that garnish push wrote"
        )
    size = sizes[path]
    if not isinstance(size, int) or size < 0:
        raise HubError(f"{address}: the Hub does not say how large {path} is ({shown(size)}); try again")
    if size > file.most:
        raise HubError(
            f"{address}: {path} has {size:,} bytes, more than the {file.most:,} that such a file of a bundle may have;"
            " nothing was downloaded"
        )


def _get(address: HubAddress, path: str, revision: str, size: int) -> str:
    from huggingface_hub import hf_hub_download

    options: dict[str, Any] = {}
    if "tqdm_class" in inspect.signature(hf_hub_download).parameters:  # older ones count only at the end
        options["tqdm_class"] = _bounded(address, path, size)
    return str(hf_hub_download(address.repository, path, revision=revision, library_name="garnish", **options))


def _bounded(address: HubAddress, path: str, most: int) -> type[Any]:
    """A silent bar that ends a download of more bytes than were announced, which would fill the disk."""
    from huggingface_hub import utils

    bars: Any = utils  # the name is not declared as exported

    @final
    class Bounded(bars.tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self.arrived = 0
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.arrived += int(n or 0)
            if self.arrived > most:
                raise HubError(f"{address}: {path} has more than the {most:,} bytes that were announced; try again")
            return None

    return Bounded


def _forget(file: Path) -> None:
    """Take a file out of the cache that is not what it should be."""
    blob = file.resolve()
    file.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _commit_of(file: Path, path: str) -> str:
    """The commit of a file in the cache, by its place there."""
    return file.parents[path.count("/")].name


def _downloaded(
    address: HubAddress, there: Mapping[str, Path], others: int | None, named: tuple[str, ...]
) -> Downloaded:
    first = next(iter(there))
    commit = _commit_of(there[first], address.file(first))
    sizes = {name: path.stat().st_size for name, path in there.items()}
    pinned = HubAddress(address.repository, address.folder, commit)
    return Downloaded(there[first].parent, pinned, sizes, others, named)
