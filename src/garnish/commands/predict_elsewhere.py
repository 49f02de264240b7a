"""Pictures that lie in a store, and maps that go to one: fetched ahead in blocks, predicted as files, sent when whole.

The work of each block is :func:`garnish.predicting.writing.write_maps`, on files of this machine.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, final

from garnish.commands.stored_pictures import StoredPicture, stored_pictures
from garnish.decodings.prediction import Prediction
from garnish.decodings.written import written_stems
from garnish.errors import DataError, GarnishError, OptionError
from garnish.files.given_pictures import folder_to_write, is_video_file, picture_files
from garnish.predicting.large import Streaming
from garnish.predicting.overlapping import Failure, PictureWork
from garnish.predicting.picture_sources import PictureSource
from garnish.predicting.write_options import WriteOptions
from garnish.predicting.writing import Told, WrittenMaps, write_maps
from garnish.stores.address_text import is_address
from garnish.stores.fetched import FetchedFiles
from garnish.stores.place import Place

#: Pictures of a block, threads that fetch, and threads that send.
_BLOCK, _FETCHING, _SENDING = 64, 8, 8
#: Blocks that are held at once: the one that is predicted, and the next.
_HELD = 2


@final
@dataclass
class _Block:
    """Pictures that are fetched together; ``held`` keeps their files until they are done with."""

    files: dict[str, Future[Path]] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)
    size: int = 0


@final
class Elsewhere:
    """Pictures or maps of which some lie in a store.

    Args:
        given: pictures, as on a command line.
        options: what is written, with the folder or the address as it was given in ``out``.
        out: where to.
        staged: an empty folder, for maps that wait to be sent.
        cache: keeps what is fetched.

    Attributes:
        files: name → file, or what stands for one that is not fetched: enough to count them and to compare names.
        options: the same, with a folder of this machine.

    Raises:
        OptionError, DataError: no such place, picture or folder.
    """

    def __init__(
        self, given: Sequence[str], options: WriteOptions, out: str, staged: Path, cache: FetchedFiles
    ) -> None:
        self._out = Place.of(out) if is_address(out) else None
        if self._out is not None and self._out.local is not None:
            out, self._out = str(self._out.local), None
        if self._out is None:
            folder_to_write(out)
        self.options = replace(options, out=Path(out) if self._out is None else staged)
        self._cache = cache
        place = self._out or Place.of(out)
        self._there = sorted(place.names()) if options.skip_existing else []
        self._empty: list[Path] = []
        self.files: dict[str, Path] = {}
        self._stored: dict[str, StoredPicture] = {}
        for text in given:
            if not is_address(text):
                found: Mapping[str, Path | StoredPicture] = picture_files(
                    [text], Path(out) if self._out is None else None
                )
            else:
                found = stored_pictures(text, self._out)
            for stem, picture in found.items():
                self._take(stem, picture)

    def _take(self, stem: str, picture: Path | StoredPicture) -> None:
        name, number = stem, 2
        while name in self.files:
            name, number = f"{stem}_{number}", number + 1
        if isinstance(picture, StoredPicture):
            self._stored[name] = picture
            text = str(picture)
            inner = "" if self._out is None else text.removeprefix(f"{self._out}/")
            self.files[name] = self.options.out / inner if inner not in ("", text) else Path(text)
        else:
            self.files[name] = picture

    def write_maps(
        self,
        files: Mapping[str, Path],
        options: WriteOptions,
        tasks: Mapping[str, Any],
        work: PictureWork[Any, Prediction[Any, Any]],
        told: Told,
        *,
        stream: Streaming | None = None,
        keep: bool = False,
    ) -> WrittenMaps:
        """As :func:`garnish.predicting.writing.write_maps`, of :attr:`files` and :attr:`options`."""
        total = WrittenMaps()
        sending: list[tuple[str, list[tuple[str, Future[None]]]]] = []
        with ThreadPoolExecutor(_FETCHING) as fetching, ThreadPoolExecutor(_SENDING) as senders:
            for block in self._ahead(self._wanted(files, options, tasks, told, total), fetching):
                with block.held:
                    here = self._arrived(block, told, total)
                    named = {str(file): str(self._stored.get(name, file)) for name, file in here.items()}
                    self._show_there(here)
                    inner = _Later(told, named, waits=self._out is not None)
                    part = write_maps(here, options, tasks, work, inner, stream=stream, keep=True)
                    _add(total, part, named)
                    if keep and self._out is None:
                        total.files |= {_told(where, named): made for where, made in part.files.items()}
                before, sending = sending, []
                if self._out is not None:
                    self._unshow(part)
                    for where, made in part.files.items():
                        sent = [(self._sent(Path(file)), senders.submit(self._send, Path(file))) for file in made]
                        sending.append((_told(where, named), sent))
                self._finish(before, told, total, keep)
            self._finish(sending, told, total, keep)
        return total

    def _wanted(
        self,
        files: Mapping[str, Path],
        options: WriteOptions,
        tasks: Mapping[str, Any],
        told: Told,
        total: WrittenMaps,
    ) -> Iterator[str]:
        """Names of pictures, without those that need not be fetched to know that their maps are there."""
        stems = written_stems(options.kinds, tasks)
        known = {*self._there, *(file.rpartition(".")[0] for file in self._there if not file.endswith(".tif"))}
        for name, file in files.items():
            tiff = (
                file.suffix.lower() in (".tif", ".tiff") and "maps" in options.kinds
            )  # may have a place on the ground
            if known and not tiff and not is_video_file(file) and all(f"{name}_{stem}" in known for stem in stems):
                total.skipped += 1
                told.picture(None)
                continue
            yield name

    def _ahead(self, names: Iterator[str], fetching: ThreadPoolExecutor) -> Iterator[_Block]:
        """Blocks whose files are being fetched, one more than is worked on."""
        waiting: list[_Block] = []
        try:
            for block in self._blocks(names, fetching):
                waiting.append(block)
                if len(waiting) >= _HELD:
                    yield waiting.pop(0)
            while waiting:
                yield waiting.pop(0)
        finally:
            for block in waiting:
                for one in block.files.values():
                    if not one.cancel():
                        one.exception()  # waits, so that what it holds is let go as well
                block.held.close()

    def _blocks(self, names: Iterator[str], fetching: ThreadPoolExecutor) -> Iterator[_Block]:
        most, block = self._cache.most // (_HELD + 1), _Block()
        for name in names:
            stored = self._stored.get(name)
            size = 0 if stored is None else stored.facts.size
            if len(block.files) >= _BLOCK or (block.files and block.size + size > most):
                yield block
                block = _Block()
            block.size += size
            block.files[name] = fetching.submit(self._fetch, name, block.held)
        if block.files:
            yield block

    def _fetch(self, name: str, held: ExitStack) -> Path:
        stored = self._stored.get(name)
        if stored is None:
            return self.files[name]
        return held.enter_context(self._cache.file(stored.place, stored.name, stored.facts))

    def _arrived(self, block: _Block, told: Told, total: WrittenMaps) -> dict[str, Path]:
        """Name → file of the pictures of a block; those that could not be fetched are failures."""
        here: dict[str, Path] = {}
        for name, fetched in block.files.items():
            try:
                here[name] = fetched.result()
            except GarnishError as error:
                where = str(self._stored.get(name, name))
                total.failures.append(Failure(PictureSource(name, where, None, broken=error), error))
                told.picture(None)
        return here

    def _show_there(self, here: Mapping[str, Path]) -> None:
        """Put empty files for maps that lie where maps are sent, so that they are left out as those of a folder."""
        for name, picture in here.items() if self._out is not None else ():
            start = f"{name}/" if is_video_file(picture) else f"{name}_"
            first = bisect_left(self._there, start)
            for there in takewhile(lambda one: one.startswith(start), islice(self._there, first, None)):  # noqa: B023
                self._empty.append(self.options.out / there)
                self._empty[-1].parent.mkdir(parents=True, exist_ok=True)
                self._empty[-1].touch()

    def _unshow(self, part: WrittenMaps) -> None:
        made = {file for files in part.files.values() for file in files}
        for file in self._empty:
            if str(file) not in made:
                file.unlink(missing_ok=True)
        self._empty.clear()

    def _sent(self, file: Path) -> str:
        return file.relative_to(self.options.out).as_posix()

    def _send(self, file: Path) -> None:
        assert self._out is not None, "maps are sent to an address"
        self._out.send(file, self._sent(file))
        file.unlink()

    def _finish(
        self, sending: list[tuple[str, list[tuple[str, Future[None]]]]], told: Told, total: WrittenMaps, keep: bool
    ) -> None:
        """Wait until the maps of some pictures are sent, and tell them."""
        for where, sent in sending:
            for _, one in sent:
                one.result()
            made = [f"{self._out}/{name}" for name, _ in sent]
            if keep:
                total.files[where] = made
            told.picture(f"{where}: {', '.join(made)}")


@final
class _Later:
    """Tells of pictures with their addresses; of those whose maps are still to be sent, nothing."""

    def __init__(self, told: Told, named: Mapping[str, str], *, waits: bool) -> None:
        self._all, self._named, self._waits = told, named, waits

    def picture(self, line: str | None) -> None:
        if line is None:
            self._all.picture(None)
        elif not self._waits:
            file = next((file for file in self._named if line.startswith(file)), "")
            self._all.picture(self._named.get(file, "") + line[len(file) :])


def _told(where: str, named: Mapping[str, str]) -> str:
    """The address of a picture, or of a frame of a video: ``FILE, frame 12``."""
    file, comma, frame = where.rpartition(", frame ")
    return named.get(where) or (f"{named.get(file, file)}{comma}{frame}" if comma else where)


def _add(total: WrittenMaps, part: WrittenMaps, named: Mapping[str, str]) -> None:
    total.count += part.count
    total.skipped += part.skipped
    for failure in part.failures:
        source, text = failure.source, str(failure.error)
        for file, address in named.items():
            if file in text:
                text = text.replace(file, address)
        total.failures.append(Failure(replace(source, where=_told(source.where, named)), DataError(text)))


@contextmanager
def pictures_elsewhere(given: Sequence[str], options: WriteOptions, out: str) -> Iterator[Elsewhere | None]:
    """Pictures and maps of which some lie in a store, for a ``with`` block; None: all are paths of this machine.

    Args:
        given: pictures, as on a command line.
        options: what is written.
        out: where to.

    Raises:
        OptionError, DataError: as :class:`Elsewhere`.
    """
    if not any(map(is_address, [*given, out])):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="garnish-maps-", ignore_cleanup_errors=True) as staged:
        try:
            yield Elsewhere(given, options, out, Path(staged), FetchedFiles())
        except OptionError as error:  # of names that were compared in the folder that stands for the address
            raise OptionError(str(error).replace(staged, out.rstrip("/"))) from error
