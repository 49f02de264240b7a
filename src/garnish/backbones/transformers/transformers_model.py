"""Base class of what is known of an architecture of transformers: which trunk it is, and the names of its tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from garnish.checking.plain_data import Json


class Architecture(NamedTuple):
    """A trunk by one of garnish's names, and the options in which it differs from that."""

    name: str
    options: dict[str, Json]


class TransformersModel(ABC):
    """One architecture of transformers. A final subclass in a file of this folder is found by itself.

    Attributes:
        model_type: as ``config.json`` calls it.
        family: name of the family (class of :mod:`garnish.backbones`) whose trunks compute the same.
    """

    model_type: ClassVar[str]
    family: ClassVar[str]

    @classmethod
    @abstractmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """The trunk of a configuration, which may be a stranger's; ``where``: of it, for messages.

        Raises:
            OptionError: a configuration that no trunk computes.
        """

    @classmethod
    @abstractmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Tensors named as transformers 4 or 5 name them, by the family's names; None: they are named otherwise.

        Tensors on the device "meta" give tensors there; no value is read.
        """

    @classmethod
    @abstractmethod
    def taps(cls, modules: Sequence[str]) -> list[str]:
        """Names of the modules whose outputs are the maps that a trunk reads, the finest first.

        Args:
            modules: names of all modules of an object of the architecture, in transformers 4 or 5.
        """

    @classmethod
    def side_of_check(cls, config: Mapping[str, Json]) -> int:
        """Height in pixels of the picture on which an object and its trunk are compared; 0: the least that goes."""
        return 0

    @classmethod
    def as_described(cls, copy: nn.Module, config: Mapping[str, Json]) -> nn.Module:
        """A copy of an object, brought into the state that its configuration describes, before it is compared."""
        return copy
