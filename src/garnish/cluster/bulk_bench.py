"""What a worker of bulk prediction works with: one trunk with its bundles, and what is done with a block of pictures.

It does with a block what ``garnish predict`` does with a folder, and needs no Ray, so it can be tried without.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, final

from garnish import __version__
from garnish.cluster.bulk_blocks import Block, block_key, chunk_key
from garnish.cluster.bulk_inputs import BulkFile
from garnish.cluster.bulk_manifest import FOLDER, RUN, Part, PictureRecord, part_name, whole_part
from garnish.cluster.fetching import check_folders_here, fetched_sources
from garnish.cluster.sample_files import MOST_SHARD, ShardSample, samples
from garnish.cluster.shipped_model import ShippedModel
from garnish.decodings.written import written_stems
from garnish.errors import DataError, OptionError
from garnish.model.input_size import InputSize, SizeRule, input_size
from garnish.model.predict_many import picture_work
from garnish.model.streamed import predict_streamed
from garnish.output import logger
from garnish.predicting.large import Streaming
from garnish.predicting.picture_sources import PictureSource
from garnish.predicting.write_options import WriteOptions
from garnish.predicting.writing import WrittenMaps, write_sources
from garnish.stores.place import Place
from garnish.tiles.streaming import is_streamed
from garnish.tiles.tiling import Tiling

_log = logger(__name__)

#: Pictures of a shard that are written with one part.
_CHUNK = 64

#: A finished part: its key, itself, and whether it was there before.
DonePart = tuple[str, Part, bool]


@final
@dataclass(frozen=True)
class BulkJob:
    """What workers are to do; it is sent to each of them.

    Attributes:
        model: a :class:`ShippedModel`, or a reference to one in Ray's object store.
        out: absolute path or address that maps are written to.
        asked: what ``run.json`` says.
        run: its hash.
        options: what is written; ``out`` of it is not used.
        tasks: names; None: all.
        batch: pictures of one size in a pass; None: as :func:`garnish.model.predict_many.predict_many` has it.
        tiling: how pictures are run.
        size: at which the model sees them.
        device: that the model is put on.
        version: of garnish, which must be that of the node.
    """

    model: Any
    out: str
    asked: Mapping[str, Any]
    run: str
    options: WriteOptions
    tasks: tuple[str, ...] | None
    batch: int | None
    tiling: Tiling
    size: SizeRule
    device: str
    version: str = __version__


@final
class Bench:
    """The model of a worker and what it is asked.

    Raises:
        OptionError: another version of garnish here, or a node that does not see the folder that is written to.
        GarnishError: as in opening the model.
    """

    def __init__(self, job: BulkJob) -> None:
        if __version__ != job.version:
            raise OptionError(
                f"a node has garnish {__version__}, the command {job.version}; install the same on all of them"
            )
        self._job, self._place = job, Place.of(job.out)
        self._check_out()
        self._folder = Path(tempfile.mkdtemp(prefix="garnish-bulk-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._out = self._place.local or self._folder / "maps"
        shipped = job.model
        if not isinstance(shipped, ShippedModel):
            import ray

            shipped = ray.get(shipped)
        model = shipped.open(self._folder, job.device)
        served, named = model.served, None if job.tasks is None else list(job.tasks)
        tasks = {name: task for name, task in served.tasks.items() if named is None or name in named}
        keep = "probabilities" in job.options.kinds
        self._work = picture_work(model, named, batch=job.batch, probabilities=keep, tiling=job.tiling, size=job.size)
        self._stems = written_stems(job.options.kinds, tasks)
        seen = input_size(job.size, served, named)

        def stream(file: Path, name: str) -> list[Path]:
            return list(predict_streamed(model, file, self._out / name, named, job.tiling, _log.info).values())

        self._stream = Streaming(
            lambda size: seen == InputSize() and is_streamed(size, job.tiling), served.bands_of(tasks), stream
        )

    def _check_out(self) -> None:
        """A node that does not share the folder would write where nobody looks."""
        name = f"{FOLDER}/{RUN}"
        found = None if self._place.facts(name) is None else json.loads(self._place.read(name, most=2**20))
        if not isinstance(found, dict) or found.get("asked") != json.loads(json.dumps(self._job.asked)):
            raise OptionError(
                f"--out {self._job.out}: a node does not see {name} there; name a folder that all nodes share, or a"
                " store (s3://…)"
            )

    def predicted(self, block: Block) -> tuple[list[DonePart], list[PictureRecord]]:
        """Do a block: its parts, and the record of a shard that could not be read.

        Raises:
            OptionError: a folder that this node does not see. DataError: a file that cannot be written.
            GarnishError: what passes of the model raise.
        """
        check_folders_here(block.files)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            if block.shard is not None:
                return self._shard(block.shard, Path(folder))
            key = block_key(self._job.run, block)
            if (part := whole_part(self._place, key)) is not None:
                return [(key, part, True)], []
            versions = {file.name: file.version for file in block.files}
            found = self._written(fetched_sources(block.files, Path(folder), versions), Path(folder))
            records = [
                found.record(file.name, file.where, versions[file.name], block.tries.get(file.name, 0))
                for file in block.files
            ]
            return [self._kept(key, Part(tuple(records)))], []

    def _shard(self, shard: BulkFile, folder: Path) -> tuple[list[DonePart], list[PictureRecord]]:
        """The pictures of a shard, :data:`_CHUNK` at a time, each time with a part."""
        done: list[DonePart] = []
        taken: set[str] = set()
        chunks = _chunks(shard, folder)
        while True:
            try:
                chunk = next(chunks, None)
            except DataError as error:
                after = sum(len(part.records) for _, part, _ in done)
                reason = f"{error}{f' (after {after:,} pictures of it)' if after else ''}"
                return done, [PictureRecord(shard.name, shard.where, shard.version, {}, reason, 1, shard.name)]
            if chunk is None:
                break
            key = chunk_key(self._job.run, shard, len(done))
            sources = self._sources(shard, chunk, folder, taken)
            if (part := whole_part(self._place, key)) is not None:
                done.append((key, part, True))
                continue
            found = self._written(sources, folder)
            records = [found.record(source.name, source.where, shard.version, 0) for source in sources]
            done.append(self._kept(key, Part(tuple(replace(record, shard=shard.name) for record in records))))
        key = chunk_key(self._job.run, shard, "end")
        return [*done, self._kept(key, Part((), (shard.name, shard.version)))], []

    def _sources(
        self, shard: BulkFile, chunk: Sequence[ShardSample], folder: Path, taken: set[str]
    ) -> list[PictureSource]:
        """The samples as files; ``taken`` gets the names of their maps."""
        sources: list[PictureSource] = []
        for number, sample in enumerate(chunk):
            name, where = f"{shard.name}/{sample.key}", f"{shard.where}: {sample.key}"
            made, broken = {f"{name}_{stem}" for stem in self._stems}, sample.broken
            if not broken and made & taken:
                broken = "its maps would replace those of another picture of the shard"
            if broken:
                sources.append(PictureSource(name, where, None, broken=DataError(f"{where}: {broken}")))
                continue
            taken |= made
            file = folder / str(number) / f"{PurePosixPath(sample.key).name}{sample.suffix}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(sample.data)
            sources.append(PictureSource(name, where, file, file))
        return sources

    def _written(self, sources: Iterable[PictureSource], folder: Path) -> BlockResult:
        """Predict, write and send; what lies below ``folder`` is removed once its maps are there."""
        sizes: dict[str, dict[str, int]] = {}
        fetched: dict[str, Path] = {}
        out = self._out.resolve()

        def noted() -> Iterator[PictureSource]:
            for source in sources:
                if source.file is not None and folder in source.file.parents:
                    fetched[source.name] = source.file
                yield source

        def sent(name: str, files: Sequence[Path]) -> None:
            made = {file.resolve().relative_to(out).as_posix(): file for file in files}
            sizes[name] = {relative: file.stat().st_size for relative, file in made.items()}
            if self._place.local is None:
                for relative, file in made.items():
                    self._place.send(file, relative)
                    file.unlink()
            if name in fetched:
                fetched.pop(name).unlink()

        options = replace(self._job.options, out=self._out)
        found = write_sources(noted(), options, self._work, Unheard(), stream=self._stream, then=sent)
        return BlockResult(found, sizes)

    def _kept(self, key: str, part: Part) -> DonePart:
        self._place.write(part_name(key), part.text(key).encode())
        return key, part, False


@final
@dataclass(frozen=True)
class BlockResult:
    """What came of the pictures of a block.

    Attributes:
        found: counts and failures.
        sizes: name → file → bytes.
    """

    found: WrittenMaps
    sizes: Mapping[str, Mapping[str, int]]

    def record(self, name: str, where: str, version: str, tries: int) -> PictureRecord:
        """The record of a picture; ``tries``: how often it failed before."""
        if name in self.sizes:
            return PictureRecord(name, where, version, self.sizes[name])
        reasons = [str(failure.error) for failure in self.found.failures if failure.source.name == name]
        return PictureRecord(name, where, version, {}, (reasons or ["nothing came of it"])[0], tries + 1)


@final
class Unheard:
    """Is told of pictures and says nothing."""

    def picture(self, line: str | None) -> None:
        """One more is done."""


def _chunks(shard: BulkFile, folder: Path) -> Iterator[list[ShardSample]]:
    """The samples of a shard, some at a time; raises DataError where it cannot be fetched or read."""
    file = Path(shard.file)
    if shard.place:
        file = folder / f"shard{PurePosixPath(shard.file).suffix.lower()}"
        Place.of(shard.place).fetch(shard.file, file, most=MOST_SHARD)
    found = samples(file)
    while chunk := list(islice(found, _CHUNK)):
        yield chunk
