"""``ChangeLog``: changes of bundles in order, as short as it can be for whoever begins to follow it later.

A replica that applies to its own store what the log has, in order, ends with what a single server would have, whenever
it began: what a later change has made void is left out, so uploads that come and go leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from garnish.checking.plain_data import Json


@final
@dataclass(frozen=True)
class BundleChange:
    """One change of what a name stands for.

    Attributes:
        kind: an upload, a folder of the folder of bundles, or that the name's bundle goes.
        name: of the bundle.
        folder: of ``from``, its name.
        mark: of an upload SHA-256 of its description, which has that of its weights; of a folder of its weights.
    """

    kind: Literal["upload", "from", "remove"]
    name: str
    folder: str = ""
    mark: str = ""


@final
@dataclass(frozen=True)
class NumberedChange:
    """A change in its place.

    Attributes:
        number: of the change, from 1.
        change: what it is.
        since: the first of the puts in a row that this one stands for.
        cancels: of a removal, the number from which on its put had been applied; who has not applied that needs
            neither. None: it removes what was there at the start.
    """

    number: int
    change: BundleChange
    since: int
    cancels: int | None = None


@final
@dataclass(eq=False)
class ChangeLog:
    """Changes by number; not for several threads.

    Attributes:
        named: names of the bundles that the start names, over which puts come.
        last: number of the latest change; 0: none.
    """

    named: Collection[str]
    last: int = 0
    _of: dict[str, list[NumberedChange]] = field(default_factory=dict)

    def add(self, change: BundleChange) -> int:
        """The latest change; returns its number."""
        self.last += 1
        kept = self._of.setdefault(change.name, [])
        former = kept.pop() if kept and self._is_put_over(kept[-1].change, kept[:-1]) else None
        if change.kind == "remove":
            cancels = None if former is None else former.since
            kept.append(NumberedChange(self.last, change, self.last, cancels))
        else:
            is_over = former is not None and self._is_put_over(change, kept)
            since = former.since if is_over and former is not None else self.last
            kept.append(NumberedChange(self.last, change, since))
        return self.last

    def after(self, number: int) -> list[NumberedChange]:
        """What a follower needs that has applied everything up to a number, in order."""
        found = [one for kept in self._of.values() for one in kept if one.number > number]
        return sorted(
            (one for one in found if one.cancels is None or one.cancels <= number), key=lambda one: one.number
        )

    def uploads(self) -> dict[str, str]:
        """Name → mark of the uploads that are served."""
        tops = {name: kept[-1].change for name, kept in self._of.items() if kept}
        return {name: top.mark for name, top in tops.items() if top.kind == "upload"}

    def forget(self, number: int) -> None:
        """Drop removals that nobody needs any more, every follower having applied what has this number."""
        for name, kept in list(self._of.items()):
            kept[:] = [one for one in kept if one.cancels is None or one.number > number]
            if not kept:
                del self._of[name]

    def _is_put_over(self, change: BundleChange, before: Sequence[NumberedChange]) -> bool:
        """Whether it lies over what the start has, and is taken away by one removal: see ``KnownBundles.put``."""
        if change.kind == "from":
            named = change.name in self.named and not any(_removes_start(one) for one in before)
            return named or change.folder != change.name
        return change.kind == "upload"

    def facts(self) -> dict[str, Json]:
        """As JSON, for :meth:`read`."""
        entries: list[Json] = [
            [one.number, one.change.kind, one.change.name, one.change.folder, one.change.mark, one.since, one.cancels]
            for kept in self._of.values()
            for one in kept
        ]
        return {"last": self.last, "changes": entries}

    def read(self, facts: dict[str, Json]) -> None:
        """What :meth:`facts` gave, in place of what is here.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        self.last, self._of = int(facts["last"]), {}
        for number, kind, name, folder, mark, since, cancels in facts["changes"]:
            change = BundleChange(kind, str(name), str(folder), str(mark))
            self._of.setdefault(change.name, []).append(NumberedChange(int(number), change, int(since), cancels))


def _removes_start(one: NumberedChange) -> bool:
    return one.change.kind == "remove" and one.cancels is None
