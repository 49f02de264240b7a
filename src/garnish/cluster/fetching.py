"""The pictures of a block as sources to predict: files as they lie, or fetched from places a few ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from garnish.cluster.bulk_inputs import BulkFile
from garnish.errors import DataError, OptionError
from garnish.files.pictures import MAX_BYTES
from garnish.predicting.picture_sources import PictureSource
from garnish.stores.place import Place

#: Pictures that are fetched at a time, and ahead of those that are asked for.
_FETCHERS, _AHEAD = 4, 8


def check_folders_here(files: Sequence[BulkFile]) -> None:
    """Raise OptionError where files of the machine that a command runs on lie in a folder that this one has not."""
    for folder in sorted({str(Path(file.file).parent) for file in files if not file.place}):
        if not Path(folder).is_dir():
            raise OptionError(
                f"{folder}: a node does not see this folder of pictures; name one that all nodes share, or a store"
            )


def fetched_sources(files: Sequence[BulkFile], folder: Path, versions: dict[str, str]) -> Iterator[PictureSource]:
    """The pictures in order; one that cannot be fetched is broken.

    Args:
        files: pictures.
        folder: to fetch to, each into a folder of its own; its file keeps its name, which files of maps may hold.
        versions: name → version; gets that of what was fetched.
    """

    def fetch(number: int, file: BulkFile) -> PictureSource:
        if not file.place:
            return PictureSource(file.name, file.where, Path(file.file), Path(file.file))
        to = folder / str(number) / PurePosixPath(file.file).name
        try:
            facts = Place.of(file.place).fetch(file.file, to, most=MAX_BYTES)
        except DataError as error:
            return PictureSource(file.name, file.where, None, broken=error)
        versions[file.name] = f"{facts.size}-{facts.version}"
        return PictureSource(file.name, file.where, to, to)

    waiting: deque[Future[PictureSource]] = deque()
    with ThreadPoolExecutor(_FETCHERS, "garnish-fetch") as pool:
        for number, file in enumerate(files):
            waiting.append(pool.submit(fetch, number, file))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
