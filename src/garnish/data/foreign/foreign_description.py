"""ForeignDescription: base class of the YAML files of other programs that are read as data descriptions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from garnish.checking.plain_data import Json


class ForeignDescription(ABC):
    """One kind of file. Subclasses have class variables and class methods only; no instances are made.

    Attributes:
        tool: the program whose files these are, for messages.
    """

    tool: ClassVar[str]

    @classmethod
    @abstractmethod
    def recognised(cls, given: Mapping[str, Json]) -> bool:
        """Whether a mapping without ``images``, ``tasks`` and ``layout`` is such a file, by its keys."""

    @classmethod
    @abstractmethod
    def described(cls, given: Mapping[str, Json], source: str, base: Path) -> dict[str, Json]:
        """The keys of a data description (``docs/data.md``), ``path`` absolute.

        What the file asks to be run or fetched is neither; what is not read of it is told.

        Args:
            given: the content of the file.
            source: its name, for messages.
            base: the folder that its paths are relative to.

        Raises:
            DataError: folders that do not exist, or that lie as no description can say.
            OptionError: keys with other values than they can have.
        """
