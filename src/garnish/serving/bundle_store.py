"""``BundleStore``: all bundles of a server, on disk all of them, in memory those that were used last.

No lock is held while a bundle is read but that of its own name, so nobody waits for another's bundle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.errors import BundleError, shown
from garnish.output import logger
from garnish.serving.bundle_facts import served_facts
from garnish.serving.engine import Engine, Loaded
from garnish.serving.known_bundles import KnownBundle, KnownBundles
from garnish.serving.name_locks import NameLocks
from garnish.serving.refusals import UnknownBundle
from garnish.serving.residents import Resident, Residents
from garnish.serving.upload_folder import UploadFolder, check_bundle_name

#: Most bytes of an upload, unless told.
MOST_UPLOAD = 256 * 2**20

_log = logger(__name__)


@final
@dataclass(frozen=True)
class StoreCounts:
    """Numbers of a store so far: bundles known and in memory, bytes of the latter, and what using them took.

    A hit was in memory when it was asked for; ``dropped`` had to leave it for others.
    """

    known: int
    resident: int
    nbytes: int
    hits: int
    misses: int
    dropped: int
    load_seconds_total: float


@final
class BundleStore:
    """Bundles by name, for any number of threads.

    Args:
        engine: loads and unloads them.
        memory: bytes that bundles in memory may take together. Those that requests use are never dropped: what would go
            beyond the bound beside them is refused as :class:`Busy`.
        uploads: where uploads are kept, also for the next start; None: none are taken. One server a folder.
        root: a folder of bundles; those directly below it are known, also ones that come later.
        max_upload: bytes of an upload.

    Raises:
        BundleError: a folder that cannot be made or read.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        memory: int,
        uploads: Path | None = None,
        root: Path | None = None,
        max_upload: int = MOST_UPLOAD,
    ) -> None:
        self._engine = engine
        self._residents = Residents(engine, memory)
        self._names = NameLocks()
        self._known = KnownBundles(root, engine.check)
        self._has_root = root is not None
        self._uploads = None if uploads is None else UploadFolder(uploads, max_upload)
        for name, folder in {} if self._uploads is None else self._uploads.bundles().items():
            self._known.kept(name, folder)
        self._counting = threading.Lock()
        self._hits = self._misses = 0
        self._seconds = 0.0

    # ---- what there is --------------------------------------------------------------------------------------------

    def add(self, name: str, folder: Path) -> None:
        """Make a bundle known; it is read when somebody asks for it. An upload of its name came later, and covers it.

        Raises:
            BundleError: a bad name, one that is there already, or no folder.
        """
        check_bundle_name(name)
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such folder; give one that model.save or garnish train wrote")
        made = KnownBundle(folder, "start")
        there = self._known.add(name, made)
        if there.origin == "upload":
            _log.warning("bundle %s: the upload of this name is served, not %s", name, folder)
        elif there is not made:
            raise BundleError(f"{folder}: the name {name!r} is taken by {there.folder}; give another name")
        elif (other := self._known.below_root(name)) is not None and not other.samefile(folder):
            _log.warning("bundle %s: %s is served, not %s", name, folder, other)

    def names(self) -> tuple[str, ...]:
        """Of all bundles, sorted; those are left out, and told once, whose description says that they do not fit."""
        return self._known.names()

    def about(self, name: str) -> dict[str, Json]:
        """Facts of a bundle, which is read if it never was.

        Raises:
            UnknownBundle: no such name. BundleError, Busy: it cannot be read.
        """
        known = self._known.find(name)
        if known.facts is None:
            with self.using([name]) as (loaded,):
                return {**served_facts(loaded), "resident": True}
        return {**known.facts, "resident": self._residents.holds(known.resident)}

    def counts(self) -> StoreCounts:
        """Numbers so far."""
        known, held = len(self.names()), self._residents
        with self._counting:
            hits, misses, seconds = self._hits, self._misses, self._seconds
        return StoreCounts(known, len(held), held.nbytes, hits, misses, held.dropped, seconds)

    # ---- using ----------------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, names: Sequence[str]) -> Iterator[tuple[Loaded, ...]]:
        """Bundles that stay whole and in memory for a ``with`` block, whatever their names stand for meanwhile.

        Raises:
            UnknownBundle: no such name. BundleError: one cannot be read, or its folder has changed since it became
            known. Busy: no room beside those that requests use.
        """
        with ExitStack() as held:
            found = []
            for name in names:
                resident = self._hold(name)
                held.callback(self._residents.release, resident)
                found.append(resident.loaded)
            yield tuple(found)

    def _hold(self, name: str) -> Resident:
        resident = self._known.find(name).resident
        if resident is not None and self._residents.take(resident):
            with self._counting:
                self._hits += 1
            return resident
        with self._names.holding(name):
            known = self._known.find(name)  # it may stand for another by now
            with self._counting:
                self._misses += 1
            resident = known.resident
            if resident is None or not self._residents.take(resident):
                resident = self._load(name, known)
            return resident

    def _load(self, name: str, known: KnownBundle) -> Resident:
        """Read a bundle, for one user; its name is held."""
        expected, began = known.expected, time.monotonic()
        self._residents.reserve(name, expected)
        try:
            loaded = self._read(name, known)
        except BundleError as error:
            self._residents.cancel(expected)
            if (path := str(known.folder.resolve())) not in str(error) and (path := str(known.folder)) not in str(
                error
            ):
                raise
            _log.warning("bundle %s: %s", name, error)
            raise BundleError(str(error).replace(path, name)) from error  # clients learn no path of the server
        except BaseException:
            self._residents.cancel(expected)
            raise
        resident = self._residents.settle(loaded, expected)
        known.sha256, known.facts, known.nbytes = loaded.sha256, served_facts(loaded), loaded.nbytes
        known.resident = resident
        with self._counting:
            self._seconds += time.monotonic() - began
        return resident

    def _read(self, name: str, known: KnownBundle) -> Loaded:
        known.check(name)
        loaded = self._engine.load(name, known.folder)
        try:
            known.check(name, loaded)  # it may have changed while it was read
        except BaseException:
            self._engine.unload(loaded)
            raise
        return loaded

    # ---- coming and going -----------------------------------------------------------------------------------------

    def put(self, name: str, files: Mapping[str, bytes]) -> dict[str, Json]:
        """Take an upload: it is read from a hidden folder, then kept, then visible; else nothing has changed.

        Args:
            name: of the bundle; an earlier one is replaced, and stays whole for those that use it.
            files: file name → bytes.

        Returns:
            :meth:`about` it.

        Raises:
            BundleError: a bad name, other files than a bundle's, a damaged bundle or one of another trunk; or no space,
            of which the cause is an OSError. TooLarge: too many bytes. Busy: no room in memory.
        """
        check_bundle_name(name)
        uploads = self._uploads
        if uploads is None:
            raise BundleError("uploads are not taken: the server was started without --uploads")
        sent = uploads.checked(files)
        with self._names.holding(name), uploads.staged(name, sent) as folder:
            return self._enter(name, KnownBundle(folder, "upload"), lambda: uploads.write(name, sent))

    def put_from(self, name: str, folder_name: str) -> dict[str, Json]:
        """Take the bundle in a folder directly below ``root``, also under another name, until the server ends.

        Raises:
            UnknownBundle: no such folder. BundleError, Busy: as :meth:`put`.
        """
        check_bundle_name(name)
        if not self._has_root:
            raise BundleError("no folder to take bundles from: the server was started without --bundles")
        folder = self._known.below_root(folder_name)
        if folder is None:
            raise UnknownBundle(f"no bundle in a folder {shown(folder_name)} below --bundles")
        with self._names.holding(name):
            return self._enter(name, KnownBundle(folder, "root"), lambda: folder)

    def _enter(self, name: str, made: KnownBundle, kept: Callable[[], Path]) -> dict[str, Json]:
        """Read what a name is to stand for, keep its files in the folder where they stay, and let it stand for it."""
        resident = self._load(name, made)
        try:
            made.folder = kept()
            former = self._known.put(name, made)
        except BaseException:
            self._residents.retire(resident)
            raise
        finally:
            self._residents.release(resident)
        if former is not None:
            self._residents.retire(former.resident)
            if former.origin == "upload" and made.origin != "upload" and self._uploads is not None:
                self._uploads.remove(name)
        return {**served_facts(resident.loaded), "resident": self._residents.holds(resident)}

    def remove(self, name: str) -> None:
        """Forget a bundle, which stays whole for those that use it; what it covered is served again.

        Of files, those of uploads alone are deleted: what the start named comes back with the next start, and what lies
        in the folder of bundles with it or with :meth:`put_from`.

        Raises:
            UnknownBundle: no such name. BundleError: its files cannot be deleted.
        """
        with self._names.holding(name):
            known = self._known.find(name)
            if known.origin == "upload" and self._uploads is not None:
                self._uploads.remove(name)
            self._known.forget(name)
            self._residents.retire(known.resident)
