"""The cache of trunk features: the part of the trunk that no adapter changes runs once per picture (docs/features.md).

Each picture is computed alone, without gradients, whether or not there is room to store it. So a run does not depend on
what was cached before: a first run, a second one and one that was killed and resumed are equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from lightning.fabric import Fabric
from torch import Tensor

from garnish.checking.finite import not_finite
from garnish.data.augment import resize_sample
from garnish.data.dataset import Batch, Dataset, Sample, collate, read_sample
from garnish.data.loader import StepBatches
from garnish.data.picture_key import digest
from garnish.errors import DataError, OptionError, one_line
from garnish.files.atomic import write_file
from garnish.files.path_text import given_path
from garnish.model.input_size import InputSize
from garnish.model.model import Model
from garnish.model.unchanged_start import begin, prefix_of
from garnish.training.feature_file import FORMAT, Packed, as_bytes, pack, read_features, unpack

#: Most bytes of a file of maps besides its tensors.
_HEADER = 64_000

Warn = Callable[[str], None]


def can_cache(model: Model) -> str:
    """Why trunk features cannot be cached while a model's unfrozen tasks train; empty if they can."""
    try:
        prefix_of(model, [name for name in model.tasks if name not in model.frozen_tasks])
    except OptionError as error:
        return str(error)
    return ""


@final
class FeatureCache:
    """A folder of samples with their trunk states, one file each, with a size limit.

    Args:
        folder: created if missing; several runs may share it, one after the other.
        gb: size limit in 10⁹ bytes; existing files count.
        warn: called with one line when the folder is full, or cannot be written to.
        processes: of the run; more than one are refused, as each would count only its own files.

    Raises:
        OptionError: several processes, or a folder that cannot be created.
    """

    def __init__(self, folder: str | Path, gb: float, warn: Warn, *, processes: int = 1) -> None:
        if processes > 1:
            raise OptionError(f"train.cache: one process keeps it, not {processes}; set devices 1, or leave cache out")
        self.folder, self.most, self.warn = given_path(folder, "train.cache"), int(gb * 1e9), warn
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.used = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        except OSError as error:
            raise OptionError(f"train.cache: {self.folder}: {error.strerror}; choose another folder") from None
        self.is_full = self.is_broken = False

    def write(self, file: Path, packed: Packed) -> bool:
        """Store a sample in a file of the folder; False only when the folder is first found full.

        After an error of the disk nothing more is written, with a warning.
        """
        if self.is_broken or (self.is_full and not file.exists()):
            return True
        former = file.stat().st_size if file.exists() else 0
        size = sum(x.nbytes for x in packed[0].values())
        if self.used - former + size + _HEADER > self.most:
            told, self.is_full = self.is_full, True
            return told
        data = as_bytes(packed)
        assert len(data) <= size + _HEADER
        try:
            write_file(file, data)
            self.used += len(data) - former
        except OSError as error:
            if not file.exists():  # else another run has just written the same
                self.is_broken = True
                why = error.strerror or one_line(error, 100)
                self.warn(f"train.cache: {self.folder} cannot be written to ({why}); nothing more is kept there")
        return True


@final
class CachedTrunk:
    """Computes trunk states: runs the bare trunk of a model up to the first change by an owner of some tasks.

    Args:
        model: on its device.
        tasks: the tasks that will run.
        fabric: device and precision.

    Raises:
        OptionError: as :func:`garnish.model.unchanged_start.prefix_of`.
    """

    def __init__(self, model: Model, tasks: Sequence[str], fabric: Fabric) -> None:
        self.model, self.fabric = model, fabric
        try:
            self.prefix = prefix_of(model, tasks)
        except OptionError as error:
            raise OptionError(f"train.cache: {error}; leave cache out") from None
        trunk = model.backbone
        built = (trunk.name, sorted(trunk.options.items()), trunk.taps_at, trunk.mean, trunk.std, trunk.multiple)
        dtype = next(iter(trunk.frozen_tensors().values())).dtype
        computed = (str(dtype), fabric.device.type, str(fabric.strategy.precision.precision))
        #: digest of everything about the trunk that a state depends on
        self.mark = digest(FORMAT, trunk.fingerprint(), built, self.prefix.unit, self.prefix.beside, computed)
        if not (bands := model.served.bands_of(tasks)).is_rgb:  # which say what planes the trunk sees
            self.mark = digest(self.mark, repr(bands))

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its computed state."""
        image = sample.image.as_subclass(Tensor)[None].to(self.fabric.device)
        with self.fabric.autocast():
            return replace(sample, start=begin(self.model, image, self.prefix))


@final
class Resized:
    """The pictures of a set, resized for evaluation; a source of :class:`Finder`."""

    def __init__(self, dataset: Dataset, size: tuple[int, int] | InputSize | None) -> None:
        self.dataset, self.size = dataset, size

    def sample(self, number: int, index: int) -> Sample:
        """Picture ``index``, resized; ``number`` has no effect."""
        sample = read_sample(self.dataset, index)
        if isinstance(self.size, InputSize):
            return resize_sample(sample, self.size.of(sample.size, f"{sample.name}: size: train"))
        return sample if self.size is None else resize_sample(sample, self.size)

    def version(self, number: int, index: int) -> object:
        """What the result depends on besides the picture."""
        return ("resized", self.size)


@final
class Finder:
    """Reads samples with their states from the cache, or makes them without states; usable in any process.

    Args:
        folder: of the cache.
        mark: digest of the trunk.
        source: makes version ``number`` (an epoch) of picture ``index``, and says what the result depends on.
    """

    def __init__(self, folder: Path, mark: str, source: StepBatches | Resized) -> None:
        self.folder, self.mark, self.source = folder, mark, source
        self._keys: dict[int, str] = {}

    def file(self, number: int, index: int) -> Path:
        """The file of the sample, whether or not it exists.

        Raises:
            OptionError: a data set without keys for its pictures.
        """
        if index not in self._keys:
            key = self.source.dataset.key(index)
            if key is None:
                raise OptionError(
                    f"train.cache: {self.source.dataset.name} does not say what identifies its pictures"
                    " (gn.dataset(…, identify=…), or Dataset.key); leave cache out"
                )
            self._keys[index] = key
        name = digest(self.mark, self._keys[index], self.source.version(number, index))
        return self.folder / name[:2] / f"{name}.safetensors"

    def find(self, number: int, index: int) -> Sample:
        """The sample; with its state if an undamaged file of it exists."""
        try:
            return read_features(self.file(number, index), self.source.dataset.tasks)
        except (OSError, DataError):
            return self.source.sample(number, index)

    def find_all(self, keys: Sequence[tuple[int, int]]) -> list[Sample]:
        """As :meth:`find`, for several (number, index)."""
        return [self.find(number, index) for number, index in keys]


@final
class CachedPictures:
    """The pictures of one set with their states, which are computed and cached as needed.

    Args:
        cache: where they are stored.
        trunk: computes the states.
        source: see :class:`Finder`.

    Raises:
        OptionError: as :class:`Finder`.
    """

    def __init__(self, cache: FeatureCache, trunk: CachedTrunk, source: StepBatches | Resized) -> None:
        self.cache, self.trunk, self.source = cache, trunk, source
        self.finder = Finder(cache.folder, trunk.mark, source)
        self.finder.file(0, 0)

    def fill(self, number: int, index: int, sample: Sample) -> Sample:
        """A sample from the finder with its state, which is computed and cached if it has none."""
        if sample.start is not None:
            return sample
        packed = pack(self.trunk(sample))
        computed = {name: x for name, x in packed[0].items() if name != "image"}  # whose NaN is "no data"
        if not_finite(computed):  # not cached: the loss or the metrics will report it
            return unpack(packed, self.source.dataset.tasks)
        if not self.cache.write(self.finder.file(number, index), packed):
            self._say_full()
        return unpack(packed, self.source.dataset.tasks)  # same memory layout as samples read from files

    def _say_full(self) -> None:
        versions = self.source.variants or 1 if isinstance(self.source, StepBatches) else 1
        every = [(number, index) for index in range(len(self.source.dataset)) for number in range(versions)]
        held = sum(self.finder.file(number, index).exists() for number, index in every)
        each = f" in {versions} versions each" if versions > 1 else ""
        self.cache.warn(
            f"train.cache: {self.cache.folder} is full at {self.cache.most / 1e9:g} GB: of {len(every)} pictures"
            f"{each} {held} fit, the others are computed each time; raise train.cache_gb, or clear the folder"
        )


@final
class CachedBatches:
    """The batches of :class:`StepBatches` with the states of their pictures, for one process."""

    def __init__(self, cache: FeatureCache, trunk: CachedTrunk, source: StepBatches) -> None:
        self.source = source
        self.pictures = CachedPictures(cache, trunk, source)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """As :meth:`StepBatches.batches`; workers read cached states, and this process computes the others."""
        steps = range(start, stop)
        for step, found in zip(steps, self.source.each(start, stop, self.pictures.finder.find_all), strict=True):
            filled = zip(self.source.keys(step), found, strict=True)
            yield collate([self.pictures.fill(number, index, sample) for (number, index), sample in filled])


def cached_val(
    cache: FeatureCache, model: Model, val: Dataset | None, size: tuple[int, int] | None, fabric: Fabric
) -> CachedPictures | None:
    """Validation pictures with their states; None if an evaluated task changes the trunk too early."""
    if val is None or val.key(0) is None:
        return None
    try:
        trunk = CachedTrunk(model, [name for name in model.tasks if name in val.tasks], fabric)
    except OptionError:  # from a frozen task: trained ones were checked before
        return None
    return CachedPictures(cache, trunk, Resized(val, size))
