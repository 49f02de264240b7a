"""What a surface is: specimens, damage, reading, judging."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import ClassVar

#: A way to damage a copy of a specimen; returns words about what it did.
Damage = Callable[[Random, Path], str]


class Surface:
    """One kind of thing that is read from strangers; a file of :mod:`surfaces` each."""

    name: ClassVar[str]
    #: How many of all inputs it gets, over those of others.
    share: ClassVar[float] = 1.0
    #: Files (relative, or folders of them) of an input that reading may change or make.
    writes: ClassVar[Sequence[str]] = ("out",)

    #: Whether words of the input may name other places in its folder to write to, where there is nothing yet.
    names_places: ClassVar[bool] = False

    def make(self, folder: Path) -> None:
        """Write specimens, each a sub-folder; the working directory is ``folder``."""
        raise NotImplementedError

    def damages(self) -> Sequence[tuple[float, Damage]]:
        """Random ways to damage a specimen, with their weights."""
        raise NotImplementedError

    def crafted(self) -> Mapping[str, Damage]:
        """Attacks made by hand, by name."""
        return {}

    def read(self, folder: Path, draw: Random) -> None:
        """Read an input, which is also the working directory, as a user would.

        Raises:
            GarnishError, Refusal: it is refused. WrongReading: what was read is not what the input says.
        """
        raise NotImplementedError


def copied(specimen: Path, folder: Path) -> None:
    """A specimen as a new input."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(specimen, folder, symlinks=True)
