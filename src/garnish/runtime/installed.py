"""Which of the two distributions that hold these files is installed."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from garnish.errors import GarnishError


def check_installed() -> None:
    """Raise GarnishError where two distributions of different versions have written over each other's files."""
    found = {}
    for name in ("garnish", "garnish-runtime"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    if len(set(found.values())) > 1:
        told = " and ".join(f"{name} {number}" for name, number in found.items())
        raise GarnishError(f"{told} are installed over each other; uninstall both, then install one of them")
