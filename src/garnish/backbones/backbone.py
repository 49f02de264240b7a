"""Base class of the backbone families: their names, building one, the forward pass, and the fingerprint of weights."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from garnish.backbones.given_weights import Weights
from garnish.checking.tensor_facts import remembered
from garnish.engine.context import Rows
from garnish.engine.maps import TaskMaps
from garnish.engine.one_pass import run_pass
from garnish.engine.owner import Owner, owners_of
from garnish.engine.trunk import Trunk
from garnish.engine.trunk_start import TrunkState
from garnish.errors import OptionError

#: label → (name, options)
Small = Mapping[str, tuple[str, Mapping[str, object]]]


class Backbone(Trunk, ABC):
    """A frozen trunk with a forward pass. Each family is a subclass, which builds ``stem`` and ``stages``.

    Attributes:
        small: label → (name, options) of trunks that are built and run in a moment: what the tests hold the family to.
    """

    small: ClassVar[Small]
    #: Whether a pixel of its maps may depend on all of a picture, by attention or pooled statistics; False: on a part.
    sees_all: ClassVar[bool] = True
    #: Names of the modules of the model in memory that it was made of, by which adapters go back to that; else empty.
    held_modules: frozenset[str] = frozenset()

    @classmethod
    @abstractmethod
    def names(cls) -> list[str]:
        """All names that this family can build."""

    @classmethod
    @abstractmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, object]) -> Backbone:
        """Build ``name``; ``weights`` as for :func:`garnish.backbone`.

        Raises:
            OptionError: an unknown architecture option. WeightsError: weights that do not fit or cannot be read.
        """

    def forward(
        self,
        images: Tensor,
        owners: Owner | tuple[Owner, ...] | None = None,
        rows: Rows | None = None,
        *,
        unread: bool = False,
        start: TrunkState | None = None,
    ) -> tuple[Tensor | TaskMaps, ...]:
        """Run one pass: raw feature maps, finest first, each (I or R, C_i, H_i, W_i).

        Args:
            images: (I, 3, H, W) float32, normalised; sides a multiple of ``multiple``.
            owners: whose adapters act; ``()``: nobody's; None: the only owner's, if there is one.
            rows: as for :func:`garnish.engine.one_pass.run_pass`.
            unread: likewise.
            start: likewise.

        Raises:
            OptionError: there are several owners and ``owners`` is None.
        """
        present: tuple[Owner | None, ...] = (owners,) if isinstance(owners, Owner) else owners or (None,)
        if owners is None and len(self.owners):
            present = owners_of(self)
            if len(present) > 1:
                names = ", ".join(owner.name for owner in owners_of(self))
                raise OptionError(f"{self.name}: owners: name one of {names}, whose adapters act, or () for none")
        return run_pass(self, images, present, rows, unread=unread, start=start)

    def fingerprint(self, *, anew: bool = True) -> str:
        """Hash of the frozen tensors, by which a bundle recognises its backbone: see :func:`fingerprint`.

        Args:
            anew: compute it again; False: use the cached one (:func:`garnish.checking.tensor_facts.remembered`).
        """
        if anew:
            return fingerprint(self.frozen_tensors())
        return remembered(self.body, "fingerprint", lambda: fingerprint(self.frozen_tensors()))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, sorted by name; the same for every storage dtype."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        value = tensor.detach().cpu().contiguous()
        value = value.float() if value.is_floating_point() else value
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
