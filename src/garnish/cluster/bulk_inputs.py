"""What bulk prediction is given: pictures and shards of pictures, of this machine and of places elsewhere."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

from garnish.errors import DataError, OptionError, shown
from garnish.files.given_pictures import VIDEO_SUFFIXES, is_video_file, picture_files
from garnish.files.pictures import PICTURE_SUFFIXES
from garnish.output import logger
from garnish.stores.place import Place, PlaceFacts, is_address

_log = logger(__name__)

#: Files that hold many pictures.
SHARD_SUFFIXES = (".parquet", ".tar")
#: Endings of map files that a picture may have too.
_WRITTEN = (".png", ".tif", ".npy", ".npz")


@final
@dataclass(frozen=True)
class BulkFile:
    """A picture, or a shard of pictures, that is predicted.

    Attributes:
        name: of its maps; of a shard the folder of the maps of its pictures.
        where: its path or address, for people.
        place: address of the place that it lies in; empty: it is a file of this machine.
        file: its absolute path, or its name in the place.
        version: differs once the file is replaced.
        size: bytes.
    """

    name: str
    where: str
    place: str
    file: str
    version: str
    size: int

    @property
    def is_shard(self) -> bool:
        """Whether it holds many pictures."""
        return self.file.lower().endswith(SHARD_SUFFIXES)


def bulk_files(given: Iterable[str], out: str) -> list[BulkFile]:
    """The pictures and shards of given files, folders, patterns and addresses, each with another name.

    Pictures of this machine are named as :func:`garnish.files.given_pictures.picture_files` does, and those of an
    address likewise. A shard is named by its path below what was given, without its ending.

    Args:
        given: paths and patterns of this machine, and addresses (``s3://bucket/prefix``), also with wildcards.
        out: path or address that maps are written to; what lies below it is left out.

    Raises:
        DataError: nothing is there, or it cannot be listed. OptionError: videos.
    """
    folder, found = Place.of(out).local, list[BulkFile]()
    for text in given:
        here = Place.of(text).local if is_address(text) and not glob.has_magic(text) else None
        if is_address(text) and here is None:
            found += _files_there(text, out)
        else:
            found += _files_here(text if here is None else str(here), folder)
    unique = dict.fromkeys((file.place, file.file) for file in found)
    kept: list[BulkFile] = []
    names: set[str] = set()
    for file in found:
        if (file.place, file.file) not in unique:
            continue
        del unique[file.place, file.file]
        name, number = file.name, 2
        while name in names:
            name, number = f"{file.name}_{number}", number + 1
        names.add(name)
        kept.append(BulkFile(name, file.where, file.place, file.file, file.version, file.size))
    _check_shards(kept)
    return kept


def check_made_names(files: Sequence[BulkFile], stems: Sequence[str], out: str) -> None:
    """Raise OptionError where one map would be written over another, or over a picture that is to be read.

    Args:
        files: pictures and shards; of shards only the names of their folders are known.
        stems: what follows ``NAME_`` in the names of the files of each picture.
        out: path or address that they are written to.
    """
    base = out.rstrip("/") if is_address(out) else str(Path(out).resolve())
    kept = {_whole(file): file.where for file in files}
    taken: dict[str, str] = {}
    for file in files:
        for stem in () if file.is_shard else stems:
            made = f"{file.name}_{stem}"
            for ending in _WRITTEN:
                if (there := kept.get(f"{base}/{made}{ending}")) is not None:
                    raise OptionError(f"--out {out}: {stem} of {file.where} would replace {there}; choose another one")
            if made in taken:
                raise OptionError(
                    f"--out {out}: {made}.png would be {stem} of {file.where}, and another map of {taken[made]};"
                    " predict them apart, or name other --tasks"
                )
            taken[made] = file.where


def _whole(file: BulkFile) -> str:
    return f"{file.place.rstrip('/')}/{file.file}" if file.place else str(Path(file.file).resolve())


def _check_shards(files: Sequence[BulkFile]) -> None:
    """Raise OptionError where pictures of a shard would lie among others."""
    folders = {str(above) for file in files for above in PurePosixPath(file.name).parents}
    for file in files:
        if file.is_shard and file.name in folders:
            raise OptionError(
                f"{file.where}: maps of its pictures would lie in {file.name}/ among those of others;"
                " predict them apart"
            )


def _refuse_video(where: str) -> OptionError:
    return OptionError(f"{where}: videos are not predicted with --on; leave --on out, or give pictures")


def _files_here(text: str, out: Path | None) -> Iterator[BulkFile]:
    shards = dict(_shards_here(text))
    if not shards or Path(text).is_dir():
        try:
            pictures = picture_files([text], out)
        except DataError:
            if not shards:
                raise
            pictures = {}
        for name, path in pictures.items():
            if is_video_file(path):
                raise _refuse_video(str(path))
            yield _file_here(name, path)
    for name, path in shards.items():
        yield _file_here(name, path)


def _file_here(name: str, path: Path) -> BulkFile:
    try:
        facts = path.stat()
        version, size = f"{facts.st_size}-{facts.st_mtime_ns}", facts.st_size
    except OSError:  # a link that leads nowhere is told when it is read
        version, size = "missing", 0
    return BulkFile(name, str(path), "", os.path.abspath(path), version, size)  # noqa: PTH100 (links stay links)


def _shards_here(text: str) -> Iterator[tuple[str, Path]]:
    """Name and file of the shards that a path or pattern gives."""
    path = Path(text)
    if path.is_dir():
        for here, inner, names in os.walk(path):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                if name.lower().endswith(SHARD_SUFFIXES) and not name.startswith("."):
                    yield Path(here, name).relative_to(path).with_suffix("").as_posix(), Path(here, name)
    elif path.is_file():
        if text.lower().endswith(SHARD_SUFFIXES):
            yield path.stem, path
    elif glob.has_magic(text) and text.lower().endswith(SHARD_SUFFIXES):
        parts = path.parts
        base = Path(*parts[: next(number for number, part in enumerate(parts) if glob.has_magic(part))])
        for found in sorted(glob.iglob(text, recursive=True)):  # noqa: PTH207 (hidden ones left out)
            yield Path(found).relative_to(base).with_suffix("").as_posix(), Path(found)


def _files_there(text: str, out: str) -> Iterator[BulkFile]:
    """The pictures and shards of an address: of a file, a pattern, or a prefix and all below it."""
    known = (*PICTURE_SUFFIXES, *SHARD_SUFFIXES, *VIDEO_SUFFIXES)
    if glob.has_magic(text):
        head = text[: next(number for number, char in enumerate(text) if char in "*?[")].rpartition("/")[0]
        if "://" not in head or head.endswith(":/"):
            raise OptionError(f"{shown(text, 120)}: a bucket has no wildcards; write it out")
        place, pattern = Place.of(head), text[len(head) + 1 :]
        listed = place.listed(pattern)
    else:
        above, name = Place.of_file(text.rstrip("/")) if "/" in text.partition("://")[2].rstrip("/") else (None, "")
        facts = above.facts(name) if above is not None and name.lower().endswith(known) else None
        if above is not None and facts is not None:
            yield from _known_there(above, {name: facts}, out)
            return
        place = Place.of(text)
        listed = place.listed()
    found = list(_known_there(place, listed, out))
    if not found:
        raise DataError(f"{shown(text, 120)}: holds no picture ({', '.join(PICTURE_SUFFIXES)}), .parquet or .tar")
    yield from found


def _known_there(place: Place, listed: Mapping[str, PlaceFacts], out: str) -> Iterator[BulkFile]:
    address, left = str(place).rstrip("/"), 0
    avoided = out.rstrip("/") + "/" if is_address(out) else None
    for name, facts in listed.items():
        where = f"{address}/{name}"
        if avoided is not None and where.startswith(avoided) and avoided != f"{address}/":
            left += 1
            continue
        if name.lower().endswith(VIDEO_SUFFIXES):
            raise _refuse_video(where)
        if name.lower().endswith((*PICTURE_SUFFIXES, *SHARD_SUFFIXES)):
            stem = PurePosixPath(name).with_suffix("").as_posix()
            yield BulkFile(stem, where, address, name, f"{facts.size}-{facts.version}", facts.size)
    if left:
        _log.info("%s: is where maps are written; what lies there is not predicted", out)
