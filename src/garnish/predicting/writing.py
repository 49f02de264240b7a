"""Writing the maps of many pictures: which are there already, what failed, what is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, final

from garnish.decodings.prediction import Prediction
from garnish.decodings.written import has_regions, has_shares, written_stems
from garnish.errors import DataError, OptionError, plural
from garnish.files.given_pictures import check_map_names, is_video_file
from garnish.output import logger, say
from garnish.predicting.ground import ground_of
from garnish.predicting.large import StreamedMaps, Streaming, with_streams
from garnish.predicting.overlapping import Failure, PictureWork, overlapped
from garnish.predicting.picture_sources import PictureSource, file_sources
from garnish.predicting.video import video_facts
from garnish.predicting.write_options import WriteOptions

_log = logger(__name__)

#: Failures that are listed; the others are counted.
_MOST_LISTED = 100


class Told(Protocol):
    """Who is told of each picture as it ends."""

    def picture(self, line: str | None) -> None:
        """One more is done; ``line`` says what was written, None for one that was not predicted."""


@final
@dataclass
class WrittenMaps:
    """What came of it.

    Attributes:
        files: picture → the files written, where they were to be kept.
        count: pictures that were predicted.
        skipped: pictures whose files were there.
        failures: pictures that were not predicted, with the reason.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    count: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)

    def report(self) -> int:
        """Say on standard error what was left out and what failed; returns the exit code of a command."""
        if self.skipped:
            say(f"{plural(self.skipped, 'picture')} left out: their files are there (--skip-existing)", stderr=True)
        if not self.failures:
            return 0
        total = self.count + self.skipped + len(self.failures)
        say(f"{len(self.failures)} of {plural(total, 'picture')} not predicted:", stderr=True)
        for failure in self.failures[:_MOST_LISTED]:
            text, where = str(failure.error), failure.source.where
            say(f"  {text if where in text else f'{where}: {text}'}", stderr=True)
        if len(self.failures) > _MOST_LISTED:
            say(f"  and {len(self.failures) - _MOST_LISTED:,} more", stderr=True)
        return 1


def check_written(files: Mapping[str, Path], options: WriteOptions, tasks: Mapping[str, Any]) -> None:
    """Raise OptionError for kinds of files, and names of them, that cannot be written.

    Where files would be written over each other, where ``skip_existing`` could not tell them apart, and where no task
    has what a kind of files holds.

    Args:
        files: name → picture or video.
        options: what is written.
        tasks: name → task or decoding, of those that are predicted.
    """
    for kind, has in (("coco", has_regions), ("probabilities", has_shares)):
        if kind in options.kinds and not any(has(task) for task in tasks.values()):
            what = "classes to draw polygons of" if kind == "coco" else "probabilities"
            raise OptionError(f"--{kind}: none of {', '.join(tasks)} has {what}; leave it out, or name other tasks")
    check_map_names(files, written_stems(options.kinds, tasks), options.out)
    if not options.skip_existing:
        return
    for name, file in files.items():
        if name.rpartition("/")[2] != file.stem:  # numbered, by what else was given
            raise OptionError(
                f"--skip-existing: {file} has the name of another picture, so its maps are called {name}, which may be"
                " another's in a run with other pictures; give them names of their own, or leave the option out"
            )


def write_maps(
    files: Mapping[str, Path],
    options: WriteOptions,
    tasks: Mapping[str, Any],
    work: PictureWork[Any, Prediction[Any, Any]],
    told: Told,
    *,
    stream: Streaming | None = None,
    keep: bool = False,
) -> WrittenMaps:
    """Predict and write files: see :func:`garnish.predicting.overlapping.overlapped`.

    Args:
        files: name → picture or video.
        options: what is written.
        tasks: as for :func:`check_written`.
        work: reads, runs and decodes.
        told: of each picture.
        stream: what writes pictures that are too large to be held; None: there are none.
        keep: list the files in the result.

    Raises:
        DataError: a file that cannot be written. What ``work.run`` raises.
    """
    found = WrittenMaps()
    sources = file_sources(files, every=options.every)
    wanted = _wanted(sources, options, (written_stems(options.kinds, tasks), tuple(tasks)), found, told)
    return write_sources(wanted, options, work, told, stream=stream, keep=keep, found=found)


def write_sources(
    sources: Iterable[PictureSource],
    options: WriteOptions,
    work: PictureWork[Any, Prediction[Any, Any]],
    told: Told,
    *,
    stream: Streaming | None = None,
    keep: bool = False,
    found: WrittenMaps | None = None,
    then: Callable[[str, Sequence[Path]], object] = lambda name, files: None,
) -> WrittenMaps:
    """As :func:`write_maps`, of pictures from anywhere, which are asked for as much as is read ahead.

    Args:
        sources: the pictures; names must differ.
        options: what is written; ``skip_existing`` and ``every`` are the caller's to do.
        work: as for :func:`write_maps`.
        told: likewise.
        stream: likewise.
        keep: likewise.
        found: to add to; None: a new one.
        then: is given the name of a picture and the files that were written of it, in the thread that wrote them.

    Raises:
        DataError: a file that cannot be written. What ``work.run``, ``sources`` and ``then`` raise.
    """
    found = WrittenMaps() if found is None else found
    asked: dict[str, str] = {}

    def noted() -> Iterator[PictureSource]:
        for source in sources:
            asked[source.name] = source.where
            yield source

    def written(made: Prediction[Any, Any] | StreamedMaps) -> tuple[str, list[str]]:
        if isinstance(made, StreamedMaps):
            files: Sequence[Path] = made.files
        else:
            files = made.write(options.out, options.kinds, opacity=options.opacity)
        then(made.name, files)
        return made.name, [str(file) for file in files]

    doing: PictureWork[Any, Any] = work if stream is None else with_streams(work, _telling(stream, options))
    with contextlib.closing(overlapped(noted(), doing, written)) as results:
        for result in results:
            if isinstance(result, Failure):
                found.failures.append(result)
                asked.pop(result.source.name, None)
                told.picture(None)
                continue
            name, made = result
            where = asked.pop(name)
            found.count += 1
            if keep:
                found.files[where] = made
            told.picture(f"{where}: {', '.join(made)}")
    return found


def _telling(stream: Streaming, options: WriteOptions) -> Streaming:
    """The same, but it says what is asked for and not written of a large picture."""
    lost = [kind for kind in options.kinds if kind not in ("maps", "sheet")]

    def write(file: Path, name: str) -> Sequence[Path]:
        if lost:
            _log.warning(
                "%s: is too large to be held, so its maps alone are written, without %s; run it with --tile none, or"
                " make it smaller, if they are needed",
                *(file, ", ".join(lost)),
            )
        return stream.write(file, name)

    return replace(stream, write=write)


def count_pictures(files: Mapping[str, Path], *, every: int = 1) -> int | None:
    """How many pictures and frames there are; None where a video does not say, or cannot be opened."""
    total = 0
    for file in files.values():
        if not is_video_file(file):
            total += 1
            continue
        try:
            frames = video_facts(file).frames
        except DataError:
            return None
        if frames is None:
            return None
        total += -(-frames // every)
    return total


def _wanted(
    sources: Iterable[PictureSource],
    options: WriteOptions,
    kinds: tuple[tuple[str, ...], tuple[str, ...]],
    found: WrittenMaps,
    told: Told,
) -> Iterator[PictureSource]:
    """The pictures that are to be predicted; ``kinds`` as for :func:`_is_there`."""
    there: dict[Path, set[str]] = {}
    for source in sources:
        if options.skip_existing and source.broken is None and _is_there(source, options, kinds, there):
            found.skipped += 1
            told.picture(None)
            continue
        yield source


def _is_there(
    source: PictureSource,
    options: WriteOptions,
    kinds: tuple[tuple[str, ...], tuple[str, ...]],
    there: dict[Path, set[str]],
) -> bool:
    """Whether all files of a picture are there, of one that is held or the maps of one that is streamed.

    Args:
        source: the picture.
        options: what is written.
        kinds: what follows ``NAME_`` in the files of a held one without suffixes, and the tasks.
        there: what each folder held at first, with suffixes, and without unless it is ``.tif``; it is kept.
    """
    name = options.out / source.name
    if name.parent not in there:
        held = [file for file in name.parent.iterdir() if not file.name.startswith(".")] if name.parent.is_dir() else []
        there[name.parent] = {file.name for file in held} | {file.stem for file in held if file.suffix != ".tif"}
    known, (stems, tasks) = there[name.parent], kinds
    placed = all(f"{name.name}_{task}.tif" in known for task in tasks)
    if all(f"{name.name}_{stem}" in known for stem in stems):
        return placed or "maps" not in options.kinds or ground_of(source.file) is None
    return placed and all(f"{name.name}_{task}" not in known for task in tasks)
