"""One small pass before the server says that it is ready: what is made at the first is made then."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from PIL import Image

from garnish.drawing.map_files import picture_bytes
from garnish.errors import GarnishError
from garnish.files.memory_file import MemoryFile
from garnish.output import logger
from garnish.pictures.bands import Bands
from garnish.pictures.map_writer import MapWriter
from garnish.serving.asked import Answer, Asking, Ticket
from garnish.serving.engine import Loaded

_log = logger(__name__)

#: The picture's side in pixels; seconds that its pass may take.
_SIDE, _SECONDS = 64, 600.0


class Predicting(Protocol):
    """What HTTP needs of a service."""

    def predict(self, data: bytes, asking: Asking, ticket: Ticket) -> Answer:
        """See :class:`garnish.serving.service.Service`."""


class Bundles(Protocol):
    """What warming needs of a store."""

    def names(self) -> tuple[str, ...]:
        """Of all bundles."""

    def using(self, names: Sequence[str]) -> AbstractContextManager[tuple[Loaded, ...]]:
        """These, in memory."""


def warm(service: Predicting, store: Bundles) -> None:
    """Predict a grey picture with the first bundle that can be read; a server without bundles is warm as it is.

    A refusal (a picture that is too small for an odd trunk) is told in the log, and a fault raised.
    """
    for name in store.names():
        try:
            with store.using([name]) as (loaded,):
                service.predict(_grey(loaded.bands), Asking(bundles=[name]), Ticket.within(_SECONDS))
        except GarnishError as error:
            _log.warning("bundle %s is not warm: %s", name, error)
        else:
            return


def _grey(bands: Bands) -> bytes:
    """A picture file of these bands."""
    if bands.is_rgb:
        return picture_bytes(Image.new("RGB", (_SIDE, _SIDE), (127, 127, 127)), "PNG")
    file, count = MemoryFile(), len(bands.names)
    with MapWriter(file, (_SIDE, _SIDE), count, "uint8", None) as writer:
        writer.write(np.full((_SIDE, _SIDE, count), 127, np.uint8))
    return file.data
