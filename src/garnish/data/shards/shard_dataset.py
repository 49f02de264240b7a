"""A split of a data set in tar shards, read by index.

Shape letters: N samples, T tasks, H W pixels.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import final

import numpy as np
from torchvision import tv_tensors

from garnish.checking.plain_data import Json
from garnish.data.dataset import Dataset, Sample
from garnish.data.description import Description
from garnish.data.labels.written import written
from garnish.data.picture_key import digest
from garnish.data.picture_labels import PictureLabels
from garnish.data.picture_reading import read_image
from garnish.data.shard_order import ShardGroups
from garnish.data.shards.shard_description import ShardDescription
from garnish.data.shards.shard_files import Shard, shard_files
from garnish.data.shards.shard_index import Sampled, ShardReader
from garnish.errors import DataError, OptionError, plural, shown, suggest
from garnish.output import logger
from garnish.pictures.bands import RGB_BANDS, Bands
from garnish.registry import options_of
from garnish.stores.fetched import FetchedFiles
from garnish.stores.tar_headers import TarMember
from garnish.tasks.task import Task

_log = logger(__name__)

#: Shards whose headers are read at once.
_READ_AT_ONCE = 8


@final
class ShardDataset(Dataset):
    """Samples of shards, in the order of the shards' names and of their files.

    Samples without a picture are left out, in the split "train" also those without a label, which is logged.

    Args:
        description: of all splits.
        split: one of them.
        tasks: names of the tasks to read; None: all.
        cache: keeps fetched shards and indices; None: the usual one.

    Raises:
        DataError: a shard that is not there or damaged, no pictures, a task of which no sample has a label.
        OptionError: an unknown task.
    """

    def __init__(
        self,
        description: ShardDescription,
        split: str,
        tasks: Sequence[str] | None = None,
        cache: FetchedFiles | None = None,
    ) -> None:
        known = description.tasks
        for name in tasks or ():
            if name not in known:
                raise OptionError(f"{description.source}: unknown task {shown(name)}{suggest(name, known)}")
        self.description, self.split = description, split
        self._tasks = {name: entry.task for name, entry in known.items() if tasks is None or name in tasks}
        base = description.base if isinstance(description.base, Path) else Path()
        where = f"{description.source}: shards.{split}"
        self._shards = [one for p in description.patterns(split) for one in shard_files(p, base, where)]
        cache = FetchedFiles() if cache is None else cache
        total = sum(shard.facts.size for shard in self._shards)
        fetches = description.fetches and total <= cache.most  # else headers are read by ranges
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            held = list(pool.map(ShardReader(cache, fetches=fetches).samples, self._shards))
        self._reader = ShardReader(cache, fetches=description.fetches)
        self._take(held)
        self._tell(total, cache.most)

    def _take(self, held: Sequence[Mapping[str, Sampled]]) -> None:
        """Keep where the files of samples lie: numbers in arrays, so that millions take little."""
        columns = [self.description.images, *(self.description.endings[task] for task in self._tasks)]
        self._names: list[str] = []
        shards, rows, without = [], [], Counter[str]()
        for number, samples in enumerate(held):
            for stem, files in samples.items():
                row = [_place(files, endings) for endings in columns]
                is_bare = self.split == "train" and all(place[0] < 0 for place in row[1:])
                if row[0][0] < 0 or is_bare:
                    without["picture" if row[0][0] < 0 else "label"] += 1
                    continue
                self._names.append(stem)
                shards.append(number)
                rows.append(row)
        #: (N,) number of the shard; (N, 1 + T, 3) which ending, offset and size, -1 where there is none
        self._shard = np.array(shards, np.int64)
        self._rows = np.array(rows, np.int64).reshape(-1, len(columns), 3)
        where = f"{self.description.source}, {self.split}"
        if not rows:
            endings = Counter(ending for samples in held for files in samples.values() for ending in files)
            raise DataError(
                f"{where}: no sample has a file {{name}}.{' or .'.join(self.description.images)}, and one of its"
                f" labels; the shards hold {', '.join(e for e, _ in endings.most_common(8)) or 'no samples'};"
                " correct `images` or `labels`"
            )
        for task, count in self.describe().items():
            if not count:
                raise DataError(
                    f"{where}: tasks.{task}: no sample has a file {{name}}.{self.description.endings[task][0]}; correct"
                    " the template or leave the task out"
                )
            if count < len(rows):
                _log.info("%s: %d of %d pictures have labels for %s", where, count, len(rows), task)
        for what, count in without.items():
            _log.info("%s: %s without a %s left out", where, plural(count, "sample"), what)

    def _tell(self, total: int, most: int) -> None:
        sizes = sorted((shard.facts.size for shard in self._shards if shard.place.local is None), reverse=True)
        window = sum(sizes[: self.description.window])
        if self.description.fetches and window > most:
            _log.warning(
                "%s: a window of %s can have %.3g GB and the cache %.3g, so shards are fetched again and again; set a"
                " smaller `window`, or GARNISH_CACHE_GB",
                *(self.name, plural(self.description.window, "shard"), window / 1e9, most / 1e9),
            )
        told = (self.name, plural(len(self), "picture"), plural(len(self._shards), "shard"), total / 1e9)
        _log.info("%s: %s in %s, %.3g GB", *told)

    @property
    def name(self) -> str:
        """The description file, and the split."""
        return f"{self.description.source} ({self.split})"

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that some picture has a label for, by name."""
        return self._tasks

    @property
    def bands(self) -> Bands:
        """What ``channels`` states; 8-bit RGB where it states nothing."""
        return self.description.bands or RGB_BANDS

    @property
    def groups(self) -> ShardGroups:
        """Which pictures lie in one shard."""
        return ShardGroups(self._shard, self.description.window)

    @property
    def checks_labels(self) -> bool:
        """True: every label is checked when it is read."""
        return True

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        """Picture ``index`` and its targets.

        Raises:
            DataError: a file that cannot be read, a label that differs from its picture in size, values a task rejects.
        """
        index = range(len(self))[index]
        with self._files(index, tuple(self._tasks)) as (picture, labels):
            image, orientation = read_image([picture], self.bands)
            tasks = {task: entry for task, entry in self.description.tasks.items() if task in labels}
            whole = Description(self.name, picture.parent, "{name}", {}, {}, tasks, bands=self.description.bands)
            stem = self._names[index].rpartition("/")[2]
            size = (int(image.shape[-2]), int(image.shape[-1]))
            read = PictureLabels(whole, stem, picture, labels, size, orientation)
            targets = {task: read.target(task) for task in labels}
            for task, target in targets.items():
                self._tasks[task].check_target(target, str(labels[task]))
        return Sample(image=image, targets=targets, name=self._told(index, 0))

    def image(self, index: int) -> tv_tensors.Image:
        """Picture ``index`` alone; its labels are not read."""
        with self._files(range(len(self))[index], ()) as (picture, _):
            return read_image([picture], self.bands)[0]

    def key(self, index: int) -> str | None:
        """Digest of the reading options, the shard's address and version, and where the sample's files lie in it."""
        shard = self._shards[self._shard[index]]
        if not shard.facts.version:
            return None
        facts = (str(shard), shard.facts, self._names[index], self._rows[index].tolist())
        return digest("shard", self._reading(), facts, self.bands)

    def content(self, index: int) -> Mapping[str, str]:
        """Names and sizes of the sample's files, its shard's name, how labels are read, and the order's window."""
        rows = self._rows[index]
        return {
            "names of pictures": self._names[index],
            "names of shards": self._shards[self._shard[index]].name,
            "sizes of files": str(rows[:, 2].tolist()),
            "ways of reading labels": str(self._reading()),
            "window of shards": str(self.description.window),
            **({} if self.description.bands is None else {"bands of pictures": repr(self.bands)}),
        }

    def describe(self) -> dict[str, int]:
        """Task → number of pictures that have a label for it."""
        return {task: int((self._rows[:, column, 0] >= 0).sum()) for column, task in enumerate(self._tasks, 1)}

    def _reading(self) -> list[Json]:
        found: list[Json] = []
        for name, task in self._tasks.items():
            options = {key: str(value) for key, value in options_of(task).items() if key != "weight"}
            found.append([name, type(task).__name__, options, written(self.description.tasks[name].labels, task)])
        return found

    def _endings(self, column: int) -> tuple[str, ...]:
        tasks = tuple(self._tasks)
        return self.description.images if column == 0 else self.description.endings[tasks[column - 1]]

    def _told(self, index: int, column: int) -> str:
        ending = self._endings(column)[self._rows[index, column, 0]]
        return f"{self._shards[self._shard[index]]}:{self._names[index]}.{ending}"

    @contextmanager
    def _files(self, index: int, tasks: tuple[str, ...]) -> Iterator[tuple[Path, dict[str, Path]]]:
        """The picture of a sample and its labels as files; messages that name these name the members instead."""
        shard: Shard = self._shards[self._shard[index]]
        stem = self._names[index].rpartition("/")[2]
        columns = [0, *(c for c, task in enumerate(self._tasks, 1) if task in tasks and self._rows[index, c, 0] >= 0)]
        made: dict[int, Path] = {}
        with tempfile.TemporaryDirectory(prefix="garnish-sample-", ignore_cleanup_errors=True) as folder:
            for column in columns:
                which, offset, size = map(int, self._rows[index, column])
                file = Path(folder) / f"{stem}.{self._endings(column)[which]}"
                if not file.exists():  # which several tasks may read
                    file.write_bytes(self._reader.read(shard, TarMember(file.name, offset, size)))
                made[column] = file
            try:
                yield made[0], {task: made[c] for c, task in enumerate(self._tasks, 1) if c in made}
            except DataError as error:
                text = str(error)
                for column, file in made.items():
                    text = text.replace(str(file), self._told(index, column))
                raise DataError(text) from error.__cause__


def _place(files: Sampled, endings: tuple[str, ...]) -> tuple[int, int, int]:
    """Which ending a sample has, and offset and size of that file; -1: none."""
    for number, ending in enumerate(endings):
        if (member := files.get(ending)) is not None:
            return number, member.offset, member.size
    return -1, -1, -1
