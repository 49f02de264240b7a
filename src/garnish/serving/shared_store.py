"""``SharedStore``: a replica's store of bundles, whose changes are those of all replicas of an application."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar, final

from garnish.checking.plain_data import Json
from garnish.errors import BundleError, GarnishError, one_line, plural
from garnish.output import logger
from garnish.serving.bundle_store import BundleStore, StoreCounts
from garnish.serving.change_ledger import News
from garnish.serving.change_log import BundleChange, NumberedChange
from garnish.serving.engine import Loaded
from garnish.serving.refusals import Busy, UnknownBundle

_log = logger(__name__)
T = TypeVar("T")

#: Seconds of a question for news; until one without an answer is asked again; between two of them; that a change waits
#: for its turn, and for other replicas to follow.
_NEWS_SECONDS, _ANSWER_SECONDS, _PAUSE_SECONDS, _TURN_SECONDS, _FOLLOW_SECONDS = 5.0, 20.0, 0.5, 30.0, 30.0
#: How often a change is tried that memory has no room for.
_TRIES = 60


@final
class SharedStore:
    """What an application needs of a store. Reading is the replica's own; a change is made here, then by all others.

    Args:
        store: of this replica.
        ledger: a handle of :class:`garnish.serving.change_ledger.ChangeLedger`.
        name: of this replica.
        actor: its handle.
        metrics: of this replica, as text.
    """

    def __init__(
        self, store: BundleStore, ledger: Any, name: str, actor: Any, metrics: Callable[[], str] = lambda: ""
    ) -> None:
        self._store, self._ledger, self._name, self._actor, self._metrics = store, ledger, name, actor, metrics
        self._changing = threading.Lock()
        self._applied = self._asked = 0
        self._end = threading.Event()
        self.torn = ""
        """Why this replica has other bundles than the others, and must be replaced; empty: it has not."""

    # ---- reading --------------------------------------------------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        """Of all bundles, sorted."""
        return self._store.names()

    def about(self, name: str) -> dict[str, Json]:
        """Facts of one; raises UnknownBundle."""
        return self._store.about(name)

    def using(self, names: Sequence[str]) -> AbstractContextManager[tuple[Loaded, ...]]:
        """Bundles that stay whole and in memory for a ``with`` block."""
        return self._store.using(names)

    def counts(self) -> StoreCounts:
        """Numbers of this replica."""
        return self._store.counts()

    # ---- changing -------------------------------------------------------------------------------------------------

    def put(self, name: str, files: Mapping[str, bytes]) -> dict[str, Json]:
        """Take an upload, as :meth:`BundleStore.put`; back when all replicas have it.

        Raises:
            BundleError, TooLarge: as there. Busy: no room, others change bundles, or not all have followed.
        """
        return self._changed(BundleChange("upload", name), lambda: self._store.put(name, files), files)

    def put_from(self, name: str, folder_name: str) -> dict[str, Json]:
        """Take a folder below ``root``, as :meth:`BundleStore.put_from`; back when all replicas have it.

        Raises:
            UnknownBundle, BundleError: as there. Busy: as :meth:`put`.
        """
        return self._changed(BundleChange("from", name, folder_name), lambda: self._store.put_from(name, folder_name))

    def remove(self, name: str) -> None:
        """Forget a bundle, as :meth:`BundleStore.remove`; back when all replicas have.

        Raises:
            UnknownBundle, BundleError: as there. Busy: as :meth:`put`.
        """
        self._changed(BundleChange("remove", name), lambda: self._store.remove(name))

    def _changed(self, change: BundleChange, make: Callable[[], T], files: Mapping[str, bytes] | None = None) -> T:
        who = uuid.uuid4().hex
        if not self._ask("turn", who, self._name, _TURN_SECONDS, seconds=_TURN_SECONDS + _ANSWER_SECONDS):
            raise Busy(f"bundle {change.name!r}: other changes take longer than {_TURN_SECONDS:g} s; ask again", 5)
        try:
            with self._changing:
                self._apply(self._applied, self._news(-1, 0.0))
                made = make()
                if change.kind == "from" and isinstance(made, dict):
                    change = replace(change, mark=str(made["sha256"]))
                number = self._committed(who, change, files)
        except BaseException:
            self._ask("give_up", who)
            raise
        behind = self._ask("confirmed", number, _FOLLOW_SECONDS, seconds=_FOLLOW_SECONDS + _ANSWER_SECONDS)
        if behind:
            raise Busy(
                f"bundle {change.name!r}: the change is made, but {plural(len(behind), 'replica')} did not follow"
                f" within {_FOLLOW_SECONDS:g} s, and may answer with the former bundle until it does or is replaced",
                5,
            )
        return made

    def _committed(self, who: str, change: BundleChange, files: Mapping[str, bytes] | None) -> int:
        try:
            number: int | None = self._ask("commit", who, self._name, change, files)
        except GarnishError as error:
            self.torn = f"a change of bundle {change.name!r} could not be kept ({one_line(error, 200)})"
            raise
        if number is None:
            self.torn = f"a change of bundle {change.name!r} took longer than its turn"
            raise Busy(f"bundle {change.name!r}: the change took too long and is not kept; ask again", 5)
        self._applied = number
        return number

    def _ask(self, method: str, *args: object, seconds: float = _ANSWER_SECONDS) -> Any:
        """What the ledger says; raises Busy where it does not answer."""
        try:
            return getattr(self._ledger, method).remote(*args).result(timeout_s=seconds)
        except Exception as error:  # of Ray: a dead actor, a network, a timeout; or what the ledger refuses
            if isinstance(cause := getattr(error, "cause", None), GarnishError):
                raise cause from None
            kind = type(error).__name__
            raise Busy(f"changes of bundles: the ledger does not answer ({kind}); ask again", 5) from error

    # ---- following ------------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Apply every change so far, before there are requests; not to be called in a loop of asyncio.

        An upload of an earlier start that cannot be served is told and left out, as every replica leaves it out.

        Raises:
            Busy: the ledger does not answer. BundleError: a folder is another one here than where it was put.
        """
        with self._changing:
            self._apply(self._applied, self._news(-1, 0.0), is_start=True)

    def follow(self) -> None:
        """Apply changes of others as they come, until :meth:`close`; for a thread of its own."""
        while not self._end.is_set() and not self.torn:
            try:
                begun = self._applied
                news = self._news(self._asked, _NEWS_SECONDS)
                if news.asked > self._asked:
                    self._asked = news.asked
                    self._ask("report", self._name, news.asked, self._metrics())
                with self._changing:
                    self._apply(begun, news)
            except Busy as error:
                _log.warning("%s", error)
                self._end.wait(_PAUSE_SECONDS)
            except Exception as error:
                self.torn = f"a change of another replica cannot be made here ({one_line(error, 200)})"
                _log.exception("this replica cannot follow the others; it will be replaced")

    def close(self) -> None:
        """End :meth:`follow`, within the time of a question."""
        self._end.set()

    def _news(self, asked: int, seconds: float) -> News:
        found: News = self._ask("after", self._name, self._actor, self._applied, asked, seconds)
        return found

    def _apply(self, begun: int, news: News, *, is_start: bool = False) -> None:
        """Apply what is new since a number; the lock of changes is held. A change of our own may have come since."""
        if news.last < begun:
            self.torn = f"the ledger has lost changes: it knows {news.last} of {begun}"
            raise Busy(f"changes of bundles: {self.torn}; this replica will be replaced", 5)
        for one, files in news.changes:
            if one.number > self._applied:
                self._apply_one(one, files, is_start=is_start)
                self._applied = one.number
        self._applied = max(self._applied, news.last)

    def _apply_one(self, one: NumberedChange, files: Mapping[str, bytes], *, is_start: bool) -> None:
        change = one.change
        for attempt in range(_TRIES):
            try:
                if change.kind == "upload":
                    self._store.put(change.name, files)
                elif change.kind == "from":
                    facts = self._store.put_from(change.name, change.folder)
                    if facts["sha256"] != change.mark:
                        raise BundleError(
                            f"bundle {change.name!r}: folder {change.folder!r} below root is another bundle here than"
                            " where it was put; let all machines have the same, and put it again"
                        )
                else:
                    self._store.remove(change.name)
            except Busy:  # requests under way fill the memory
                if attempt == _TRIES - 1:
                    raise
                time.sleep(_PAUSE_SECONDS)
            except UnknownBundle:
                if change.kind != "remove":
                    raise
                return  # it is gone, as it should be
            except BundleError as error:
                if not is_start or change.kind != "upload":
                    raise
                _log.warning("bundle %s is not served: %s", change.name, error)
                return
            else:
                return
