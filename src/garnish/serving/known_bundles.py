"""``KnownBundles``: which folder each name of a server stands for.

A name may have three at a time: what was put, over what the start named, over what lies in the folder of bundles. It
stands for the first of them that is there; where that goes, the next one comes back.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from garnish.bundles.bundle_json import DESCRIPTION, WEIGHTS
from garnish.checking.plain_data import Json
from garnish.errors import BundleError, one_line, shown, suggest
from garnish.files.links import check_links
from garnish.files.regular import check_regular, read_regular
from garnish.files.strict_json import MOST_BYTES
from garnish.output import logger
from garnish.serving.engine import Loaded
from garnish.serving.refusals import UnknownBundle
from garnish.serving.residents import Resident
from garnish.serving.upload_folder import check_bundle_name

_log = logger(__name__)


@final
@dataclass(eq=False)
class KnownBundle:
    """What a name stands for. What was read may be dropped from memory, and must be the same when it is read again.

    Attributes:
        folder: that it is read from.
        origin: who named it: the start of the server, an upload, or the folder of bundles.
        unfit: why it cannot be served, by its description alone; None: nothing is known against it.
        mark: SHA-256 of its description, which has that of its weights; None: it has no such file.
        sha256: of its weights, once it was read; so are the next two.
        facts: for people.
        nbytes: in memory.
        resident: in memory, unless it was dropped since.
    """

    folder: Path
    origin: Literal["start", "upload", "root"]
    unfit: str | None = None
    mark: str | None = None
    sha256: str | None = None
    facts: dict[str, Json] | None = None
    nbytes: int | None = None
    resident: Resident | None = None

    def __post_init__(self) -> None:
        self.mark = _mark(self.folder)

    @property
    def expected(self) -> int:
        """Bytes that it will take in memory; about those of its file where it was never read."""
        if self.nbytes is not None:
            return self.nbytes
        try:
            return check_regular(self.folder / WEIGHTS, 2**63)
        except OSError:
            return 0

    def check(self, name: str, loaded: Loaded | None = None) -> None:
        """Raise :class:`BundleError` if the folder is not as it was when it became known, or what was read of it."""
        if self.origin == "root":
            check_links(self.folder)
        other = None not in (self.sha256, loaded) and loaded is not None and loaded.sha256 != self.sha256
        if other or _mark(self.folder) != self.mark:
            raise BundleError(
                f"bundle {name!r}: its folder has changed since it became known; put it again (PUT /v1/bundles/{name}),"
                " or start the server anew"
            )


@final
class KnownBundles:
    """Names and what they stand for; those of a folder of bundles are found when they are asked for.

    Args:
        root: the folder; None: there is none.
        check: raises BundleError for a folder that cannot be served; what it refuses is told once, and not listed.

    Raises:
        BundleError: there is no such folder.
    """

    def __init__(self, root: Path | None, check: Callable[[Path], None]) -> None:
        if root is not None and not root.is_dir():
            raise BundleError(f"{root}: is no folder of bundles; make it, or name another")
        self._root = None if root is None else root.resolve()
        self._lock = threading.Lock()
        self._check = check
        self._put: dict[str, KnownBundle] = {}
        self._named: dict[str, KnownBundle] = {}
        self._found: dict[str, KnownBundle] = {}
        self._layers = (self._put, self._named, self._found)  # what comes first covers the others
        self._hidden: set[str] = set()  # removed names, which the folder may still have

    def names(self) -> tuple[str, ...]:
        """The names of all that can be served, sorted."""
        if self._root is not None:
            try:
                there = {entry.name for entry in self._root.iterdir()}
            except OSError as error:
                _log.warning("%s: cannot be read (%s); its bundles stay as known", self._root, one_line(error, 120))
                there = set()
            with self._lock:
                new = there - self._found.keys()
            for name in new:
                self._look_for(name)
        with self._lock:
            return self._fit()

    def find(self, name: str) -> KnownBundle:
        """What a name stands for; raises :class:`UnknownBundle` for nothing."""
        with self._lock:
            known = self._top(name)
        known = known or self._look_for(name)
        if known is None:
            with self._lock:
                raise UnknownBundle(f"no bundle {shown(name)}{suggest(name, self._fit())}")
        return known

    def _top(self, name: str) -> KnownBundle | None:
        return next((layer[name] for layer in self._layers if name in layer), None)

    def _fit(self) -> tuple[str, ...]:
        tops = {name: known for layer in reversed(self._layers) for name, known in layer.items()}
        return tuple(sorted(name for name, known in tops.items() if known.unfit is None))

    def below_root(self, name: str) -> Path | None:
        """The folder of this name in the folder of bundles; None: it holds no bundle, or is a link to elsewhere."""
        if self._root is None:
            return None
        try:
            check_bundle_name(name)
        except BundleError:
            return None
        folder = self._root / name
        return folder if folder.resolve().parent == self._root and (folder / DESCRIPTION).is_file() else None

    def _look_for(self, name: str) -> KnownBundle | None:
        with self._lock:
            if name in self._hidden:
                return None
        folder = self.below_root(name)
        if folder is None:
            return None
        made = KnownBundle(folder, "root", self._unfit(folder))
        with self._lock:  # it may have been found, and removed, by others meanwhile
            if name in self._hidden:
                return None
            known = self._found.setdefault(name, made)
        if known is made and made.unfit is not None:
            _log.warning("bundle %s is not served: %s", name, made.unfit)
        return known

    def _unfit(self, folder: Path) -> str | None:
        try:
            self._check(folder)
        except BundleError as error:
            return str(error)
        return None

    def kept(self, name: str, folder: Path) -> None:
        """Let a name stand for an upload of an earlier server."""
        known = KnownBundle(folder, "upload", self._unfit(folder))
        if known.unfit is not None:
            _log.warning("bundle %s is not served: %s", name, known.unfit)
        self.put(name, known)

    def put(self, name: str, known: KnownBundle) -> KnownBundle | None:
        """Let a name stand for a bundle; returns what it stood for.

        What the start named, or the folder of bundles holds, is covered; put from the folder of its own name, it takes
        its place there.
        """
        with self._lock:
            former, is_own = self._top(name), known.origin == "root" and known.folder.name == name
            if is_own and name not in self._named:
                self._put.pop(name, None)
                self._hidden.discard(name)
                self._found[name] = known
            else:
                self._put[name] = known
            return former

    def add(self, name: str, known: KnownBundle) -> KnownBundle:
        """What the start names; returns what its name stands for: this, an upload, or what was named before it."""
        with self._lock:
            named = self._named.setdefault(name, known)
            return named if named is not known else self._put.get(name, known)

    def forget(self, name: str) -> None:
        """Let a name stand for what it covered; if it covered nothing, for nothing, whatever the folder then has."""
        with self._lock:
            layer = next(layer for layer in self._layers if name in layer)
            del layer[name]
            if layer is self._found:
                self._hidden.add(name)


def _mark(folder: Path) -> str | None:
    try:
        return hashlib.sha256(read_regular(folder / DESCRIPTION, MOST_BYTES)).hexdigest()
    except OSError:
        return None
