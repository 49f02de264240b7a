"""The cache of trunk features: what no adapter changes is computed once a picture (docs/features.md).

Each picture is computed alone, without gradients, whether or not there is room to keep it. So a run does not depend on
what was kept before: a first run, a second one and one that was killed and resumed are equal bit by bit.
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
from garnish.model.model import Model
from garnish.model.unchanged_start import begin, prefix_of
from garnish.training.feature_file import FORMAT, Packed, as_bytes, pack, read_features, unpack

#: What a file of maps takes beside its tensors, at most.
_HEADER = 64_000

Warn = Callable[[str], None]


def can_cache(model: Model) -> str:
    """Why what the trunk makes of pictures cannot be kept while a model's unfrozen tasks train; empty where it can."""
    try:
        prefix_of(model, [name for name in model.tasks if name not in model.frozen_tasks])
    except OptionError as error:
        return str(error)
    return ""


@final
class FeatureCache:
    """A folder of samples with their states, one file each, that never holds more than it may.

    Args:
        folder: made where it does not exist; several runs may share it, one after the other.
        gb: most that it may hold, in 10⁹ bytes; what lies there already counts.
        warn: told in one line when the folder is full, or cannot be written to.
        processes: of the run, each of which would count for itself what it writes.

    Raises:
        OptionError: several processes, or a place where no folder can be made.
    """

    def __init__(self, folder: str | Path, gb: float, warn: Warn, *, processes: int = 1) -> None:
        if processes > 1:
            raise OptionError(f"train.cache: one process keeps it, not {processes}; set devices 1, or leave cache out")
        self.folder, self.most, self.warn = Path(folder).expanduser(), int(gb * 1e9), warn
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.used = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        except OSError as error:
            raise OptionError(f"train.cache: {self.folder}: {error.strerror}; choose another folder") from None
        self.is_full = self.is_broken = False

    def write(self, file: Path, packed: Packed) -> bool:
        """Keep a sample in a file of the folder; False where the folder is full, for the first time.

        A disk that takes nothing more ends the writing, with a warning.
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
            if not file.exists():  # another run may have just written the same
                self.is_broken = True
                why = error.strerror or one_line(error, 100)
                self.warn(f"train.cache: {self.folder} cannot be written to ({why}); nothing more is kept there")
        return True


@final
class CachedTrunk:
    """The bare trunk of a model up to where the owners of some tasks change it.

    Args:
        model: on its device.
        tasks: those that will run.
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
        #: what of the trunk a state depends on
        self.mark = digest(FORMAT, trunk.fingerprint(), built, self.prefix.unit, self.prefix.beside, computed)

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its state."""
        image = sample.image.as_subclass(Tensor)[None].to(self.fabric.device)
        with self.fabric.autocast():
            return replace(sample, start=begin(self.model, image, self.prefix))


@final
class Resized:
    """The pictures of a set as they are evaluated: see :class:`Finder`."""

    def __init__(self, dataset: Dataset, size: tuple[int, int] | None) -> None:
        self.dataset, self.size = dataset, size

    def sample(self, number: int, index: int) -> Sample:
        """Picture ``index``."""
        sample = read_sample(self.dataset, index)
        return sample if self.size is None else resize_sample(sample, self.size)

    def version(self, number: int, index: int) -> object:
        """What beside the picture the result depends on."""
        return ("resized", self.size)


@final
class Finder:
    """Samples with their states where they are kept, else without, to be called in any process.

    Args:
        folder: of the cache.
        mark: of the trunk.
        source: makes picture ``index`` number ``number`` (an epoch), and says what the result depends on.
    """

    def __init__(self, folder: Path, mark: str, source: StepBatches | Resized) -> None:
        self.folder, self.mark, self.source = folder, mark, source
        self._keys: dict[int, str] = {}

    def file(self, number: int, index: int) -> Path:
        """Where the sample lies, or would.

        Raises:
            OptionError: a data set that does not know what identifies its pictures.
        """
        if index not in self._keys:
            key = self.source.dataset.key(index)
            if key is None:
                raise OptionError(
                    f"train.cache: {self.source.dataset.name} does not say what identifies its pictures"
                    " (Dataset.key); leave cache out"
                )
            self._keys[index] = key
        name = digest(self.mark, self._keys[index], self.source.version(number, index))
        return self.folder / name[:2] / f"{name}.safetensors"

    def find(self, number: int, index: int) -> Sample:
        """The sample; with its state where that is kept undamaged."""
        try:
            return read_features(self.file(number, index), self.source.dataset.tasks)
        except (OSError, DataError):
            return self.source.sample(number, index)

    def find_all(self, keys: Sequence[tuple[int, int]]) -> list[Sample]:
        """Several of them."""
        return [self.find(number, index) for number, index in keys]


@final
class CachedPictures:
    """The pictures of one set, with their states.

    Args:
        cache: where they are kept.
        trunk: what computes a state.
        source: see :class:`Finder`.

    Raises:
        OptionError: as :class:`Finder`.
    """

    def __init__(self, cache: FeatureCache, trunk: CachedTrunk, source: StepBatches | Resized) -> None:
        self.cache, self.trunk, self.source = cache, trunk, source
        self.finder = Finder(cache.folder, trunk.mark, source)
        self.finder.file(0, 0)

    def fill(self, number: int, index: int, sample: Sample) -> Sample:
        """What the finder gave, with its state, which is computed and kept where it had none."""
        if sample.start is not None:
            return sample
        packed = pack(self.trunk(sample))
        if not_finite(packed[0]):  # not kept: the loss or the metrics tell of it, and another run may have mended it
            return unpack(packed, self.source.dataset.tasks)
        if not self.cache.write(self.finder.file(number, index), packed):
            self._say_full()
        return unpack(packed, self.source.dataset.tasks)  # arranged in memory as what is read is

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
        """As :meth:`StepBatches.batches`; workers read what is kept, and this process computes the rest."""
        steps = range(start, stop)
        for step, found in zip(steps, self.source.each(start, stop, self.pictures.finder.find_all), strict=True):
            filled = zip(self.source.keys(step), found, strict=True)
            yield collate([self.pictures.fill(number, index, sample) for (number, index), sample in filled])


def cached_val(
    cache: FeatureCache, model: Model, val: Dataset | None, size: tuple[int, int] | None, fabric: Fabric
) -> CachedPictures | None:
    """Validation pictures with their states; None where some task that is evaluated changes the trunk too early."""
    if val is None or val.key(0) is None:
        return None
    try:
        trunk = CachedTrunk(model, [name for name in model.tasks if name in val.tasks], fabric)
    except OptionError:  # of a frozen task: what is trained was looked at before
        return None
    return CachedPictures(cache, trunk, Resized(val, size))
