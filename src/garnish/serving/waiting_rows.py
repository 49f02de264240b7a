"""The rows that wait for a pass, and whose turn it is: requests in turn, each with its oldest row first."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import final

from garnish.serving.asked import Ticket
from garnish.serving.engine import Outcome, Row


@final
@dataclass(frozen=True, eq=False)
class Waiting:
    """A row on its way through a pass.

    Attributes:
        row: the row.
        ticket: of its request.
        future: gets its outcome.
        since: when it came, on :func:`time.monotonic`.
    """

    row: Row
    ticket: Ticket
    future: Future[Outcome]
    since: float = field(default_factory=time.monotonic)

    @property
    def nbytes(self) -> int:
        """About the bytes of its picture and its outputs in float32."""
        bands, height, width = self.row.picture.shape
        channels = sum(loaded.decodings[task].channels for loaded, tasks in self.row.asked for task in tasks)
        return row_bytes(bands + channels, (height, width))


def row_bytes(channels: int, size: tuple[int, int]) -> int:
    """The bytes of so many channels in float32 at a size (H, W)."""
    return 4 * channels * size[0] * size[1]


@final
class WaitingRows:
    """The rows, by request. Whoever was served goes to the end, so a request of many windows holds up nobody.

    It has no lock of its own.
    """

    def __init__(self) -> None:
        self._by_ticket: OrderedDict[Ticket, deque[Waiting]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._by_ticket.values()))

    @property
    def tickets(self) -> set[Ticket]:
        """The requests that have rows here."""
        return set(self._by_ticket)

    def add(self, waiting: Waiting) -> None:
        """Take a row in, behind the others of its request; a new request's turn comes last."""
        self._by_ticket.setdefault(waiting.ticket, deque()).append(waiting)

    def clear(self) -> list[Waiting]:
        """Take out all."""
        found = [waiting for rows in self._by_ticket.values() for waiting in rows]
        self._by_ticket.clear()
        return found

    def dropped(self) -> list[Waiting]:
        """Take out what nobody wants any more: of those who have gone, whose deadline has passed, or cancelled."""
        now, found = time.monotonic(), list[Waiting]()
        for ticket, rows in list(self._by_ticket.items()):
            late = ticket.gone.is_set() or now >= ticket.deadline
            out = list(rows) if late else [waiting for waiting in rows if waiting.future.cancelled()]
            found += out
            if len(out) == len(rows):
                del self._by_ticket[ticket]
            elif out:
                self._by_ticket[ticket] = deque(waiting for waiting in rows if waiting not in out)
        return found

    def take(self, most: int, most_bytes: int, most_pixels: int | None = None) -> list[Waiting]:
        """Take out the rows of the next pass: of one key, at most so many; several within so many bytes and pixels.

        The first is the oldest of the request whose turn it is. Others of its key follow, one of each request in turn,
        then a second one, and so on; of a request with rows of several keys only those at its front.
        """
        taken: list[Waiting] = []
        held, key = 0, None
        more = True
        while more and len(taken) < most:
            more = False
            for ticket in list(self._by_ticket):
                rows = self._by_ticket[ticket]
                fits = not taken or (rows[0].row.key == key and held + rows[0].nbytes <= most_bytes)
                if len(taken) == most or not fits:
                    continue
                waiting = rows.popleft()
                held, key, more = held + waiting.nbytes, waiting.row.key, True
                taken.append(waiting)
                if len(taken) == 1 and most_pixels is not None:
                    most = min(most, max(most_pixels // waiting.row.picture[0].size, 1))
                if not rows:
                    del self._by_ticket[ticket]
        for ticket in dict.fromkeys(waiting.ticket for waiting in taken):
            if ticket in self._by_ticket:
                self._by_ticket.move_to_end(ticket)
        return taken
