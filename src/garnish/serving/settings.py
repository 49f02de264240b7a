"""``ServerSettings``: what the server allows; every bound of a request that is not the picture's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Bounds and rights.

    Attributes:
        token: what ``Authorization: Bearer`` must say to change bundles; None: nobody may.
        hosts: names that ``Host`` may say beside those of this machine's loopback, in lower case.
        any_address: ``Host`` may also be any numeric address, for a server that listens on all of them.
        deadline: seconds that a request has from its last byte to its answer.
        body_bytes: most bytes of a request's body, of a picture or of a bundle.
        held_bytes: most bytes of all bodies that are read or worked on at a time.
        body_seconds: in which a body must have come.
        working: requests that are worked on at a time, a thread each.
        reading: requests whose bodies are read at a time.
        parts: most parts of a form, entries of a list and names in a query.
        field_bytes: most bytes of a field that is no file.
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    deadline: float = 60.0
    body_bytes: int = 64 * 2**20
    held_bytes: int = 2**30
    body_seconds: float = 30.0
    working: int = 80
    reading: int = 256
    parts: int = 256
    field_bytes: int = 65_536

    def __repr__(self) -> str:
        return f"ServerSettings(deadline={self.deadline:g}, body_bytes={self.body_bytes}, working={self.working}, …)"
