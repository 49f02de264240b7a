"""``Residents``: bundles in memory within a bound of bytes; of those that nobody uses the longest unused goes first."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import final

from garnish.errors import BundleError
from garnish.serving.engine import Engine, Loaded
from garnish.serving.refusals import Busy


@final
@dataclass(eq=False)
class Resident:
    """A bundle in memory, which changes under the lock of :class:`Residents` alone.

    Attributes:
        loaded: what the engine made of it.
        users: requests that hold it.
        retired: its name stands for another bundle or none; it goes with its last user.
    """

    loaded: Loaded
    users: int = 0
    retired: bool = False


@final
class Residents:
    """What an engine has loaded. Room is reserved before a bundle is read, so that the bound holds meanwhile, too.

    Args:
        engine: loads and unloads.
        memory: bytes that bundles may take together, those in use included.

    Attributes:
        nbytes: that they take now.
        dropped: how many had to go so far.
    """

    def __init__(self, engine: Engine, memory: int) -> None:
        self._engine = engine
        self._memory = memory
        self._lock = threading.Lock()
        self._order: dict[Resident, None] = {}  # the longest unused first; no retired ones
        self._in_use = 0  # bytes of those that have users, retired ones included
        self._reserved = 0
        self.nbytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._order)

    def holds(self, resident: Resident | None) -> bool:
        """Whether this one is in memory under its name."""
        return resident in self._order

    def take(self, resident: Resident | None) -> bool:
        """Use one that may have been dropped; whether it is there."""
        with self._lock:
            if resident is None or resident not in self._order:
                return False
            del self._order[resident]
            self._order[resident] = None
            if not resident.users:
                self._in_use += resident.loaded.nbytes
            resident.users += 1
            return True

    def release(self, resident: Resident) -> None:
        """One user less; the last one of a retired bundle unloads it."""
        with self._lock:
            resident.users -= 1
            if resident.users:
                return
            self._in_use -= resident.loaded.nbytes
            if not resident.retired:
                return
            self.nbytes -= resident.loaded.nbytes
        self._engine.unload(resident.loaded)

    def retire(self, resident: Resident | None) -> None:
        """Its name stands for another one: unload it, or have its last user do so."""
        with self._lock:
            if resident is None or resident not in self._order:
                return
            del self._order[resident]
            resident.retired = True
            if resident.users:
                return
            self.nbytes -= resident.loaded.nbytes
        self._engine.unload(resident.loaded)

    def reserve(self, name: str, nbytes: int) -> None:
        """Make room for a bundle that will be read, dropping others; :meth:`settle` or :meth:`cancel` ends it.

        Raises:
            Busy: those that are in use leave no room. BundleError: it alone takes more than all may.
        """
        with self._lock:
            gone = self._make_room(name, nbytes)
            self._reserved += nbytes
        self._unload(gone)

    def cancel(self, nbytes: int) -> None:
        """Give reserved room back."""
        with self._lock:
            self._reserved -= nbytes

    def settle(self, loaded: Loaded, reserved: int) -> Resident:
        """Keep a bundle that was read, with one user; where there is no room for what it really takes, it is unloaded.

        Raises:
            Busy, BundleError: as :meth:`reserve`; nothing is reserved any more.
        """
        made = Resident(loaded, users=1)
        try:
            with self._lock:
                self._reserved -= reserved
                gone = self._make_room(loaded.name, loaded.nbytes)
                self.nbytes += loaded.nbytes
                self._in_use += loaded.nbytes
                self._order[made] = None
        except (Busy, BundleError):
            self._engine.unload(loaded)
            raise
        self._unload(gone)
        return made

    def _make_room(self, name: str, nbytes: int) -> list[Resident]:
        """Forget enough of those without users, and return them to be unloaded; nothing is forgotten if that fails."""
        if nbytes > self._memory:
            raise BundleError(
                f"bundle {name!r} takes {nbytes:,} bytes of memory, more than the {self._memory:,} that all may take;"
                " start the server with a larger --memory"
            )
        if self._in_use + self._reserved + nbytes > self._memory:
            raise Busy(
                f"bundle {name!r} has no room in memory beside those that requests under way use ({self._in_use:,} of"
                f" {self._memory:,} bytes); try again, ask for fewer at once, or serve with a larger --memory",
                retry_after=1,
            )
        gone: list[Resident] = []
        surplus = self.nbytes + self._reserved + nbytes - self._memory
        for resident in list(self._order):
            if surplus <= 0:
                break
            if not resident.users:
                del self._order[resident]
                surplus -= resident.loaded.nbytes
                self.nbytes -= resident.loaded.nbytes
                gone.append(resident)
        self.dropped += len(gone)
        return gone

    def _unload(self, gone: list[Resident]) -> None:
        for resident in gone:
            self._engine.unload(resident.loaded)
