"""A folder that all nodes of a cluster must see, and garnish itself, which they must have: both are tried, not assumed.

A node that sees another folder of the same name would train again what is done, or write where nobody looks. So the
driver leaves a file with a random name there, and holds a lock; each node has to see both.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from filelock import FileLock, Timeout

from garnish import __version__
from garnish.errors import one_line
from garnish.files.atomic import write_file, writing
from garnish.files.locks import locked
from garnish.files.regular import read_regular

#: Packages that must be of one version everywhere, for results depend on them.
_SAME = ("torch", "numpy")
_PROBES = "probes"


@final
@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a node must have in common with the driver.

    Attributes:
        folder: of the runs, absolute.
        probe: name of the file that lies there while the driver runs.
        versions: of packages.
        working_folder: of the driver, from which relative paths of a recipe begin.
    """

    folder: str
    probe: str
    versions: dict[str, str]
    working_folder: str


def lacks(needs: Needs) -> str:
    """What this node lacks, in one line that names it; empty: nothing."""
    here = f"node {socket.gethostname()}"
    for name, version in needs.versions.items():
        found = _version(name)
        if found != version:
            return f"{here} has {name} {found or 'not at all'}, the driver {version}; install the same on every node"
    probe = Path(needs.folder) / _PROBES / needs.probe
    try:
        seen = read_regular(probe, 200).decode()
    except (OSError, ValueError):
        seen = ""
    if seen != needs.probe:
        return (
            f"{here} does not see the folder of the runs, {one_line(needs.folder, 120)}, as the driver does; set"
            " --store to a path on a file system that all nodes have mounted there"
        )
    mine = probe.with_name(f"{needs.probe}.{socket.gethostname()}.{os.getpid()}")
    try:
        write_file(mine, needs.probe.encode())
        mine.unlink()
    except OSError as error:
        return (
            f"{here} cannot write into {one_line(needs.folder, 120)} ({one_line(error, 100)}); check its rights there"
        )
    try:
        with FileLock(str(_lock(probe)), blocking=False):
            pass
    except Timeout:
        return ""
    except OSError as error:
        return f"{here} cannot lock files in {one_line(needs.folder, 120)} ({one_line(error, 100)})"
    return (
        f"{here} does not see the locks of other nodes in {one_line(needs.folder, 120)}, so two could train one run;"
        " mount it with locks (NFS from version 4 has them), or set --store to another file system"
    )


@contextlib.contextmanager
def shown_to_nodes(folder: Path) -> Iterator[Needs]:
    """For a ``with`` block, what nodes have to see of a folder, and what else they need.

    Raises:
        BundleError: the folder cannot be written.
    """
    folder = folder.resolve()
    name = secrets.token_hex(8)
    probe = folder / _PROBES / name
    with writing(f"{folder}:", " or choose another folder with --store"):
        write_file(probe, name.encode())
    _tidy(probe.parent)
    versions = {package: _version(package) for package in ("garnish", *_SAME)}
    try:
        with locked(_lock(probe), lambda who: None):
            yield Needs(folder=str(folder), probe=name, versions=versions, working_folder=str(Path.cwd()))
    finally:
        for file in (probe, _lock(probe)):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another driver's lie there
            probe.parent.rmdir()


def _tidy(probes: Path) -> None:
    """Remove what killed drivers left there: probes whose lock nobody holds."""
    for lock in probes.glob("*.lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(str(lock), blocking=False):
            lock.with_suffix("").unlink(missing_ok=True)
            lock.with_name(f"{lock.name}.by").unlink(missing_ok=True)
            lock.unlink(missing_ok=True)


def _lock(probe: Path) -> Path:
    return probe.with_name(f"{probe.name}.lock")


def _version(package: str) -> str:
    """Its version, without importing it; empty: it is not installed."""
    if package == "garnish":
        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
