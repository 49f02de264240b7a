"""The samples of a shard: files with one stem, as WebDataset groups them, by where they lie in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import final

from garnish.data.shards.shard_files import Shard
from garnish.errors import DataError, shown
from garnish.files.atomic import write_file
from garnish.files.regular import open_regular, read_regular
from garnish.files.strict_json import parse_json
from garnish.stores.fetched import FetchedFiles
from garnish.stores.tar_headers import MOST_MEMBER, MOST_MEMBERS, TarMember, tar_members

#: Increased when an index holds something else.
_FORMAT = 1
#: Largest index that is read, bytes.
_MOST_INDEX = 2**29
_ANY_SIZE = 2**62
#: As WebDataset: the stem ends at the first dot of the last part, and names between double underscores are no samples.
_STEM = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_META = re.compile(r"__[^/]*__(?:$|/)")
#: A sample: ending in lower case, without the dot → where its file lies.
Sampled = Mapping[str, TarMember]


@final
class ShardReader:
    """Reads members of shards: of a fetched copy, or by ranges.

    Args:
        cache: keeps copies and indices.
        fetches: whether shards are fetched whole; else each member is a request.
    """

    def __init__(self, cache: FetchedFiles, *, fetches: bool) -> None:
        self.cache, self.fetches = cache, fetches

    def samples(self, shard: Shard) -> Mapping[str, Sampled]:
        """Stem → its files, in the order of the shard. Headers are read once; the index is kept.

        Raises:
            DataError: no tar file as :func:`garnish.stores.tar_headers.tar_members` takes it; a stem that occurs again
                behind another one, so that samples would be halves.
        """
        key = ("tar index", _FORMAT, str(shard), shard.facts.version, shard.facts.size)
        if not shard.facts.version:
            return _grouped(self._members(shard), str(shard))

        def make(file: Path) -> None:
            told = [(one.name, one.offset, one.size) for one in self._members(shard)]
            write_file(file, json.dumps({"members": told}).encode(), synced=False)

        with self.cache.made(key, "index.json", make) as file:
            return _grouped(_kept(file, shard.facts.size), str(shard))

    def read(self, shard: Shard, member: TarMember) -> bytes:
        """The bytes of a member.

        Raises:
            DataError: it cannot be read, or the shard was replaced since it was listed.
        """
        if not self.fetches and shard.place.local is None:
            return shard.place.read_part(shard.name, member.offset, member.offset + member.size)
        with self._opened(shard) as handle:
            return _exactly(handle, member.offset, member.offset + member.size, shard)

    def _members(self, shard: Shard) -> Iterator[TarMember]:
        if self.fetches or shard.place.local is not None:
            with self._opened(shard) as handle:
                yield from tar_members(
                    lambda start, stop: _exactly(handle, start, stop, shard), shard.facts.size, str(shard)
                )
        else:
            yield from tar_members(
                lambda start, stop: shard.place.read_part(shard.name, start, stop), shard.facts.size, str(shard)
            )

    @contextmanager
    def _opened(self, shard: Shard) -> Iterator[int]:
        with self.cache.file(shard.place, shard.name, shard.facts) as file:
            try:
                opened = open_regular(file, _ANY_SIZE)
            except OSError as error:
                raise DataError(f"{shard}: cannot be read ({error.strerror or error}); check the path") from error
            with opened:
                yield opened.fileno()


def _exactly(handle: int, start: int, stop: int, shard: Shard) -> bytes:
    data = os.pread(handle, stop - start, start)
    if len(data) != stop - start:
        raise DataError(f"{shard}: ends before byte {stop:,}; it is cut short, or was replaced")
    return data


def _kept(file: Path, size: int) -> Iterator[TarMember]:
    """The members of an index, which whoever can write to the cache may have changed."""
    try:
        told = parse_json(read_regular(file, _MOST_INDEX))
        members = told["members"] if isinstance(told, dict) else None
        if not isinstance(members, list) or len(members) > MOST_MEMBERS:
            raise ValueError("no list of members")
        for name, offset, length in members:
            fits = isinstance(name, str) and type(offset) is int and type(length) is int
            if not fits or not (offset >= 0 and 0 <= length <= MOST_MEMBER and offset + length <= size):
                raise ValueError("no member")
            yield TarMember(name, offset, length)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: is no index of a shard ({shown(str(error))}); remove it") from error


def _grouped(members: Iterator[TarMember], where: str) -> Mapping[str, Sampled]:
    samples: dict[str, dict[str, TarMember]] = {}
    last = ""
    for member in members:
        parted = _STEM.fullmatch(member.name)
        if parted is None or _META.match(member.name):
            continue
        stem, ending = parted[1], parted[2].lower()
        if stem != last and stem in samples:
            raise DataError(
                f"{where}: {shown(member.name)} is apart from the other files of {shown(stem)}; write the files of a"
                " sample one after the other, as webdataset's TarWriter and tar --sort=name do"
            )
        if ending in samples.setdefault(stem, {}):
            raise DataError(f"{where}: {shown(member.name)} occurs twice; write it once")
        samples[stem][ending] = member
        last = stem
    return samples
