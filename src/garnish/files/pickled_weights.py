"""Looking at a stranger's pickled weights (``.pth``) before torch opens them: what they would build, and how much.

``torch.load(weights_only=True)`` runs no code of a file, but does what the file says with the little it allows: unpack
a compressed record of any size, make a buffer of any length, nest tuples that are hashed for ever. Files that
``torch.save`` writes from tensors ask for nothing of the kind, so what does is refused. Nothing here needs torch.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

from garnish.files.regular import open_regular

#: Largest pickle inside such a file, bytes; that of a ViT-g has 300 kB, with an optimizer's state less than 1 MB.
MOST_PICKLE = 4 * 2**20
#: Largest file in the format before PyTorch 1.6, bytes; its numbers are read at once, not mapped.
MOST_LEGACY = 16 * 10**9
#: Entries of what a pickle builds, counted as often as they would be met on a walk.
MOST_ENTRIES = 10**7

#: The classes and functions that a state dict, the notes of a training and an optimizer's state are built with. Left
#: out of what torch allows: buffers and tensors made by length, codecs, tensors of other than plain layouts.
_BUILDERS = re.compile(
    r"collections (OrderedDict|Counter)|(__builtin__|builtins) (set|complex)"
    r"|torch\._utils (_rebuild_tensor|_rebuild_tensor_v2|_rebuild_parameter|_rebuild_parameter_with_state)"
    r"|torch(\.storage)? (?!Untyped|Typed)\w+Storage|torch\.nn\.parameter Parameter|torch (Size|device)"
    r"|torch b?(float|int|uint|complex)\w+|torch bool"
)
#: The end of a zip: mark, disks (2), records (2), their list's length and start, length of a comment. Before it, in
#: zips that may be large, the same in more bytes, and a place that says where those are.
_END, _LARGE, _PLACE = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
#: Pickles in a file before PyTorch 1.6: a magic number, the protocol, the machine, what was saved, its storages' keys.
_LEGACY_PICKLES = 5


class UnfitPickle(ValueError):
    """A file that builds what no state dict is built of; its text says what, without the path."""


class DamagedPickle(ValueError):
    """A file that is not what it should be from first to last."""


def is_zipped(file: Path, most: int) -> bool:
    """Whether it has the format since PyTorch 1.6; raises as :func:`garnish.files.regular.open_regular`."""
    with open_regular(file, most) as stream:
        return stream.read(4) == b"PK\x03\x04"


def check_pickled(file: Path, most: int) -> None:
    """Look at a ``.pth`` file without building anything.

    Args:
        file: in either format of ``torch.save``.
        most: its largest size, bytes.

    Raises:
        UnfitPickle: other objects than tensors, compressed or doubled records, or more entries than a state dict has.
        DamagedPickle: it ends too early, or is no such file.
        OSError: it cannot be read, or is no regular file of such a size.
    """
    if is_zipped(file, most):
        with open_regular(file, most) as stream:
            _check_records(stream)
        return
    with open_regular(file, MOST_LEGACY) as stream:
        head = io.BytesIO(stream.read(MOST_PICKLE))
    for _ in range(_LEGACY_PICKLES):
        _check_pickle(head)


def _check_records(stream: Any) -> None:
    try:
        with zipfile.ZipFile(stream) as archive:
            records = archive.infolist()
            if archive.start_dir != _start_of_records(stream):
                raise UnfitPickle("it holds two lists of its records")
            seen: set[str] = set()
            for record in records:
                if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                    raise UnfitPickle("its records are compressed, which torch.save never does")
                if record.filename.lower() in seen:  # readers differ in which of the two they take
                    raise UnfitPickle("a record stands in it twice")
                seen.add(record.filename.lower())
            for record in records:
                if record.filename.lower().endswith(".pkl"):
                    if record.file_size > MOST_PICKLE:
                        raise UnfitPickle(
                            f"its description of {record.file_size:,} bytes is longer than a state dict's"
                        )
                    _check_pickle(io.BytesIO(archive.read(record)))
    except UnfitPickle:
        raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, LookupError) as error:
        raise DamagedPickle("its records cannot be found") from error


def _start_of_records(stream: Any) -> int:
    """Where the list of records begins by the end of the file, which is where torch reads it.

    Python reads the list right before the end instead, wherever the end says that it is: with two of them, what is
    looked at here would not be what torch opens.
    """
    last = stream.seek(-_END.size, io.SEEK_END)
    mark, *_, start, comment = _END.unpack(stream.read(_END.size))
    if mark != b"PK\x05\x06" or comment:
        raise UnfitPickle("something stands behind its list of records, where torch.save writes nothing")
    if last < _LARGE.size + _PLACE.size:
        return int(start)
    stream.seek(last - _LARGE.size - _PLACE.size)
    large = _LARGE.unpack(stream.read(_LARGE.size))
    mark, _, place, _ = _PLACE.unpack(stream.read(_PLACE.size))
    if mark != b"PK\x06\x07":
        return int(start)
    if large[0] != b"PK\x06\x06" or place != last - _LARGE.size - _PLACE.size or start not in (large[-1], 2**32 - 1):
        raise UnfitPickle("it holds two lists of its records")
    return int(large[-1])


def _check_pickle(stream: io.BytesIO) -> None:
    """Walk over one pickle with a stack of sizes in place of objects."""
    stack: list[int | None] = []  # None: a mark
    memo: dict[object, int | None] = {}
    try:
        for code, argument, _ in pickletools.genops(stream):
            if code.name == "GLOBAL" and not _BUILDERS.fullmatch(str(argument)):
                raise UnfitPickle(f"it holds objects other than tensors ({str(argument)[:60]})")
            if code.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
                raise UnfitPickle("it holds objects other than tensors")
            if code.name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
                memo[len(memo) if code.name == "MEMOIZE" else argument] = stack[-1]
                continue
            if code.name in ("BINGET", "LONG_BINGET", "GET"):
                stack.append(memo[argument])
                continue
            size = _popped(stack, code)
            if size > MOST_ENTRIES:
                raise UnfitPickle("its entries multiply when they are read")
            made = code.stack_after
            stack.extend(None if one is pickletools.markobject else size for one in made)
    except UnfitPickle:
        raise
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise DamagedPickle("its description is incomplete") from error


def _popped(stack: list[int | None], code: pickletools.OpcodeInfo) -> int:
    """Take what an opcode takes from the stack; the size of what it makes of it."""
    size = 1
    before = list(code.stack_before)
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            size += top
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        size += stack.pop() or 0
    return size
