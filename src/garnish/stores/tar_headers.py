"""Where the members of a tar file lie, read from its headers alone, within bounds."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

from garnish.errors import DataError, OptionError, shown
from garnish.stores.address_text import checked_name

#: Members of a tar file, and bytes of one, at most.
MOST_MEMBERS, MOST_MEMBER = 1_000_000, 2**31
#: Bytes that are read at once at the least, where a request costs more than they do; and for one header at most.
_BLOCK, _MOST_HEADER = 64 * 1024, 2**20
_REMEDY = "write it anew, e.g. with webdataset's TarWriter"


@final
@dataclass(frozen=True)
class TarMember:
    """A file in a tar file.

    Attributes:
        name: relative, with ``/``.
        offset: of its first byte.
        size: bytes.
    """

    name: str
    offset: int
    size: int


@final
class RangedReader(io.RawIOBase):
    """A stream over ``part(start, stop)``, which asks for blocks; no read of it takes more than a header has.

    Args:
        part: gives bytes.
        size: of the whole.
    """

    def __init__(self, part: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._part, self._size, self._place = part, size, 0
        self._held, self._from = b"", 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; behind the end nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise tarfile.ReadError("a header leads before its begin")
        self._place = base + offset
        return self._place

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes; raises tarfile.ReadError for more than a header has."""
        size = self._size if size is None or size < 0 else size
        if size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        start, stop = self._place, min(self._place + size, self._size)
        if start >= stop:
            return b""
        if start < self._from or stop > self._from + len(self._held):
            self._held, self._from = self._part(start, min(max(stop, start + _BLOCK), self._size)), start
        self._place = stop
        return self._held[start - self._from : stop - self._from]


def tar_members(part: Callable[[int, int], bytes], size: int, where: str) -> Iterator[TarMember]:
    """The files of an uncompressed tar file, in order; folders are left out.

    Args:
        part: gives the bytes from a start to before a stop.
        size: of the tar file, bytes.
        where: its name, for messages.

    Raises:
        DataError: no tar file, or one that is compressed, damaged or cut short; links, devices, sparse files, names
            that lead out of a folder, too many or too large members.
    """
    stream, count = RangedReader(part, size), 0
    try:
        with tarfile.open(fileobj=stream, mode="r:") as opened:  # type: ignore[call-overload]
            while (member := opened.next()) is not None:
                opened.members = []  # of a million, kept for nothing
                count += 1
                if count > MOST_MEMBERS:
                    raise DataError(f"{where}: holds more than {MOST_MEMBERS:,} members; write smaller shards")
                if not member.isdir():
                    yield _checked(member, size, where)
            stream.seek(opened.offset)
    except DataError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, OSError) as error:
        raise DataError(
            f"{where}: is no tar file, or a compressed or damaged one ({shown(str(error))}); {_REMEDY}"
        ) from error
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0") or opened.offset + tarfile.BLOCKSIZE > size:
        raise DataError(f"{where}: is damaged, or cut short, behind byte {opened.offset:,}; {_REMEDY}")


def _checked(member: tarfile.TarInfo, size: int, where: str) -> TarMember:
    name = member.name.removeprefix("./")
    told = f"{where}: {shown(name)}"
    try:
        checked_name(name, where)
    except OptionError as error:
        raise DataError(f"{told} is no name of a file; {_REMEDY}") from error
    if not member.isreg() or member.issparse():
        raise DataError(f"{told} is a link, a device or a sparse file; {_REMEDY}, with the files themselves")
    if not 0 <= member.size <= MOST_MEMBER:
        raise DataError(f"{told} has {member.size:,} bytes, more than the {MOST_MEMBER:,} that a member may have")
    if member.offset_data + member.size > size:
        raise DataError(f"{told} ends behind the end of the file: it is cut short; {_REMEDY}")
    return TarMember(name, member.offset_data, member.size)
