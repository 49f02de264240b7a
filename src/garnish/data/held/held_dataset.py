"""Items of a source as pictures with labels: read when asked for, checked always.

What they are read by is made in :mod:`garnish.data.held.opening`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

from torchvision import tv_tensors

from garnish.data.dataset import Dataset, Sample
from garnish.data.held.columns import keys_of
from garnish.data.held.images import image_of
from garnish.data.held.looking import LookedAt, difference_of, lines_of, looked_at_item, oddities
from garnish.data.held.reading import ItemReading
from garnish.data.held.sending import is_forked, unsendable
from garnish.data.held.source import IndexedSource, items_of
from garnish.data.picture_key import digest
from garnish.data.subset import chosen
from garnish.errors import DataError, OptionError, one_line, plural, shown
from garnish.output import logger
from garnish.pictures.bands import Bands
from garnish.tasks.task import Task

_log = logger(__name__)

#: Items that are looked at when a set is made.
LOOKED_AT = 4
#: Items, evenly spaced, that are asked for a key that none of the first has; keys that a message lists.
_LOOKED_FOR_KEYS, _MOST_KEYS = 64, 8


@final
class HeldDataset(Dataset):
    """What ``gn.dataset`` makes.

    Attributes:
        reading: how items are read.
        source: what is asked for items; None: they were read into memory.
    """

    def __init__(
        self, name: str, reading: ItemReading, source: IndexedSource | None, identify: Callable[[int], str] | None
    ) -> None:
        self.reading, self.source = reading, source
        self._name, self._identify = name, identify
        self._kept: list[Sample] = []
        self._told: list[str] = []
        #: of the first items; empty where one was another when it was read again
        self._digests: list[str] = []
        self._unsendable = "" if source is None else unsendable(source)
        own = source is not None and getattr(identify, "__self__", None) is source.mine  # a method, which goes with it
        if not self._unsendable and identify is not None and not own and (reason := unsendable(identify)):
            self._unsendable = f"identify: {reason}"

    def take_all(self, items: Iterable[Any], most: int) -> None:
        """Read all items of what gives them once, and look at the first.

        Raises:
            DataError: more than ``most`` bytes, or an item that is not what it should be.
        """
        taken, seen, keys = 0, list[LookedAt](), dict[str, None]()
        for index, item in enumerate(items_of(items, self._name)):
            sample = self.reading.sample(item, self._called(index))
            taken += sum(x.nbytes for x in (sample.image, *sample.targets.values()))
            if taken > most:
                raise DataError(
                    f"{self._name}: more than {most / 1e9:g} GB after {plural(index, 'item')}, as it is read into"
                    " memory: it gives no item again; give a set with __getitem__, raise memory_gb=, or cut it with"
                    " itertools.islice"
                )
            self._kept.append(sample)
            if index < LOOKED_AT:
                seen.append(looked_at_item(sample, self.reading.kinds(item, self._called(index))))
            keys |= dict.fromkeys(keys_of(item))
        _log.info(
            "%s: gives its items once, so all %d were read into memory (%.3g GB)", self._name, len(self), taken / 1e9
        )
        self._tell(seen, tuple(keys))

    def look(self) -> None:
        """Look at the first items of what gives them again, and tell what is odd about them.

        Raises:
            DataError: no items, or one that is not what it should be.
        """
        assert self.source is not None, "else they are looked at as they are taken"
        seen, keys = list[LookedAt](), dict[str, None]()
        for index in range(min(len(self), LOOKED_AT)):
            item, where = self.source.item(index), self._called(index)
            sample, kinds = self.reading.sample(item, where), self.reading.kinds(item, where)
            keys |= dict.fromkeys(keys_of(item))
            again = self.reading.sample(self.source.item(index), where)
            seen.append(looked_at_item(sample, kinds, again))
        for index in chosen(len(self), _LOOKED_FOR_KEYS) if self._without_key(keys) else ():
            keys |= dict.fromkeys(keys_of(self.source.item(index)))
            if not self._without_key(keys):
                break
        self._tell(seen, tuple(keys))

    def _tell(self, seen: Sequence[LookedAt], keys: Sequence[str]) -> None:
        """Keep what was understood of the first items, and tell what is odd about them and their ``keys``."""
        if not seen:
            raise DataError(f"{self._name}: holds no items; give others, or another split")
        self._check_keys(keys)
        self._told = lines_of(seen, self.tasks)
        self._digests = [] if any(one.changes for one in seen) else [one.digest for one in seen]
        for line in oddities(seen, self.tasks):
            _log.warning("%s: %s", self._name, line)
        if self._unsendable and not is_forked():
            _log.warning("%s: %s", self._name, self._not_sent())

    def _without_key(self, keys: Iterable[str]) -> list[tuple[str, str]]:
        """(task, its key) of tasks whose key is not among those of the items, though these have keys."""
        known = set(keys)
        wanted = [(task, self.reading.columns.given.get(task, task)) for task in self.tasks]
        return [(task, key) for task, key in wanted if known and isinstance(key, str) and key not in known]

    def _check_keys(self, keys: Sequence[str]) -> None:
        """Raise DataError for a task whose key none of the items has."""
        looked = len(self) if self.source is None else min(len(self), max(LOOKED_AT, _LOOKED_FOR_KEYS))
        for task, key in self._without_key(keys):
            raise DataError(
                f"{self._name}: tasks.{task}: none of {plural(looked, 'item')} has {key!r}, but"
                f" {', '.join(map(shown, keys[:_MOST_KEYS]))}; write columns={{{task!r}: …}} with one of them, or give"
                f" {key!r} as None where there is no label"
            )

    @property
    def name(self) -> str:
        """As it was given, or the class of the source."""
        return self._name

    @property
    def tasks(self) -> Mapping[str, Task]:
        """As they were given."""
        return self.reading.tasks

    @property
    def bands(self) -> Bands:
        """As they were given; 8-bit RGB where they were not."""
        return self.reading.bands

    @property
    def checks_labels(self) -> bool:
        """True: every label is checked when it is read."""
        return True

    def __len__(self) -> int:
        return len(self._kept) if self.source is None else self.source.length

    def __getitem__(self, index: int) -> Sample:
        """Item ``index`` as a sample, whose name is that of the set and its index.

        Raises:
            DataError: an item that cannot be read, or is not what its tasks take.
        """
        index = range(len(self))[index]
        if self.source is None:
            return self._kept[index]
        return self.reading.sample(self.source.item(index), self._called(index))

    def changes(self, index: int) -> str:
        """What is another when item ``index`` is read twice, ``image`` or a task; empty: nothing."""
        return "" if self.source is None else difference_of(self[index], self[index])

    def image(self, index: int) -> tv_tensors.Image:
        """The picture of item ``index`` alone; its labels are not looked at."""
        index = range(len(self))[index]
        if self.source is None:
            return self._kept[index].image
        where = self._called(index)
        return image_of(self.reading.columns.picture(self.source.item(index), where), self.bands, where)[0]

    def key(self, index: int) -> str | None:
        """Digest of what ``identify`` gives, of the first items and of how items are read; None without ``identify``.

        None too where the first items were other ones when they were read again.
        """
        if self._identify is None or not self._digests:
            return None
        return digest("held", self._identified(index), self._digests, self.reading.facts())

    def content(self, index: int) -> Mapping[str, str]:
        """How items are read, what ``identify`` gives, and of the first items digests of their numbers."""
        told = self.reading.facts()
        if self._identify is not None:
            told["what identify gives"] = self._identified(index)
        if index < len(self._digests):
            told["numbers of the first items"] = self._digests[index]
        return told

    def _identified(self, index: int) -> str:
        assert self._identify is not None, "asked for only where it is given"
        try:
            text = self._identify(range(len(self))[index])
        except Exception as error:  # code of others raises anything
            told = f"{type(error).__name__} {one_line(error, 120)}"
            raise DataError(f"{self._called(index)}: identify fails: {told}; correct it") from error
        if not isinstance(text, str) or not text:
            raise DataError(f"{self._called(index)}: identify gave {shown(text)}; give a text that is the item's own")
        return text

    def __repr__(self) -> str:
        bands = "8-bit RGB" if self.bands.is_rgb else f"bands {', '.join(self.bands.names)}"
        lines = [f"  {line}" for line in self._told]
        return "\n".join([f"{self._name}: {plural(len(self), 'item')}, {bands}", *lines])

    def __getstate__(self) -> dict[str, Any]:
        if self._unsendable:
            raise OptionError(f"{self._name}: {self._not_sent()}")
        return dict(vars(self))

    def _not_sent(self) -> str:
        return (
            f"cannot be sent to other processes ({self._unsendable}); give functions of transforms names in a module,"
            " or have fit prepare pictures itself: workers=0"
        )

    def _called(self, index: int) -> str:
        return f"{self._name}[{index}]"
