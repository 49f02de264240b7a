"""The pictures of shards: of tar files as WebDataset writes them, and of Parquet files with a column of pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

from garnish.data.conversion.parquet import suffix_of
from garnish.errors import DataError, MissingExtraError, one_line, showable, shown, suggest
from garnish.files.pictures import MAX_BYTES, PICTURE_SUFFIXES
from garnish.files.regular import check_regular, open_regular
from garnish.stores.tar_headers import tar_members

#: Largest shard, bytes.
MOST_SHARD = 2**40
#: Longest name of a sample, bytes; each part of it is a name of a file, with what is put behind it.
_MOST_KEY, _MOST_PART = 900, 180
#: Name and ending of a member, as WebDataset splits them: at the first dot of the last part.
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
#: Columns of pictures and of names, the first of them that is there.
_PICTURES = ("image", "bytes", "img", "picture", "jpg", "png")
_NAMES = ("__key__", "key", "name", "file_name", "filename", "path", "id", "image_id")
#: Rows that are decoded at a time.
_ROWS = 16


@final
@dataclass(frozen=True)
class ShardSample:
    """A picture of a shard.

    Attributes:
        key: its name in the shard, a relative path; the number of its row where there is none.
        data: of its file; empty where ``broken`` says why there is none.
        suffix: of its file, ``.png``.
        broken: why it cannot be predicted; empty: nothing is known against it.
    """

    key: str
    data: bytes
    suffix: str
    broken: str = ""


def samples(file: Path) -> Iterator[ShardSample]:
    """The pictures of a shard in its order; of two with one key the second is broken, and so are keys that are no path.

    Raises:
        DataError: it cannot be read, or holds no pictures. MissingExtraError: pyarrow is not installed.
    """
    seen: set[str] = set()
    found = _rows(file) if file.suffix.lower() == ".parquet" else _members(file)
    for number, sample in enumerate(found):
        odd = sample.broken or _odd_key(sample.key) or ("its key stands twice" if sample.key in seen else "")
        if odd:
            yield ShardSample(f"sample {number}", b"", sample.suffix, f"{shown(sample.key, 80)}: {odd}")
            continue
        seen.add(sample.key)
        yield sample
    if not seen:
        raise DataError(f"{file}: holds no picture ({', '.join(PICTURE_SUFFIXES)})")


def _odd_key(key: str) -> str:
    """What is wrong with a key as a relative path; empty: nothing."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in key or showable(key) != key:
        return "is no name of a picture: an empty part, . or .., or odd characters"
    if len(key.encode()) > _MOST_KEY or max(len(part.encode()) for part in parts) > _MOST_PART:
        return "is too long for the name of a file"
    if any(part.startswith(".") for part in parts):
        return "would be a hidden file"
    return ""


def _members(file: Path) -> Iterator[ShardSample]:
    """Of a tar file; nothing is unpacked, and members that are no pictures are left out."""
    try:
        with open_regular(file, MOST_SHARD) as opened:
            size = os.fstat(opened.fileno()).st_size

            def part(start: int, stop: int) -> bytes:
                opened.seek(start)
                return opened.read(stop - start)

            for member in tar_members(part, size, str(file)):
                found = _MEMBER.fullmatch(member.name)
                suffix = "" if found is None else f".{found[2].lower().rpartition('.')[2]}"
                if found is None or suffix not in PICTURE_SUFFIXES or PurePosixPath(found[1]).name.startswith("."):
                    continue
                data = part(member.offset, member.offset + member.size)
                yield ShardSample(found[1], data, suffix, "" if data else "is empty")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error, 120)}); fetch it again") from error


def _rows(file: Path) -> Iterator[ShardSample]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("Parquet files are read by pyarrow; pip install 'garnish[hf]'") from None
    try:
        check_regular(file, MOST_SHARD)
        opened = parquet.ParquetFile(file)
        picture, name = _columns(file, opened.schema_arrow)
        columns = [picture] if name is None else [picture, name]
        number = 0
        for batch in opened.iter_batches(batch_size=_ROWS, columns=columns):
            for row in batch.to_pylist():
                yield _row_sample(row[picture], None if name is None else row[name], number)
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({one_line(error, 120)}); fetch it again") from error


def _columns(file: Path, schema: Any) -> tuple[str, str | None]:
    """The column of pictures, and that of names."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    pictures = [
        column.name
        for column in schema
        if holds_bytes(column.type) or (types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0)
    ]
    texts = [c.name for c in schema if types.is_string(c.type) or types.is_large_string(c.type)]
    numbers = [c.name for c in schema if types.is_integer(c.type)]
    chosen = [name for name in _PICTURES if name in pictures]
    if not chosen:
        raise DataError(
            f"{file}: which column holds pictures? none is called {' or '.join(_PICTURES[:2])}"
            f"{suggest(_PICTURES[0], pictures)}; rename it"
        )
    names = [name for name in _NAMES if name in texts or name in numbers]
    return chosen[0], names[0] if names else None


def _row_sample(cell: Any, name: Any, number: int) -> ShardSample:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    inner = cell.get("path") if isinstance(cell, Mapping) else None
    given = name if name is not None else inner
    key = f"{number:06}" if given is None else str(given).removeprefix("./")
    ending = PurePosixPath(key).suffix.lower()
    if ending in PICTURE_SUFFIXES:
        key = key[: -len(ending)]
    if not isinstance(data, bytes) or not data or len(data) > MAX_BYTES:
        return ShardSample(key, b"", "", "holds no bytes of a picture")
    suffix = ending if ending in PICTURE_SUFFIXES else suffix_of(data)
    if suffix is None:
        return ShardSample(key, b"", "", f"begins with {data[:8]!r}, which is no PNG, JPEG, TIFF, GIF or WebP")
    return ShardSample(key, data, suffix)
