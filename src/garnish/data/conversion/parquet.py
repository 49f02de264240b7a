"""Unpacking Parquet files with columns of pictures, as the Hugging Face hub has them, into a plain folder.

A column of pictures is a struct of ``bytes`` (a picture file) and ``path`` (its name), or plain bytes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from garnish.errors import DataError, MissingExtraError, OptionError, one_line, shown, suggest
from garnish.files.atomic import writing
from garnish.files.growing_folder import growing_folder
from garnish.files.path_text import given_path
from garnish.files.pictures import MAX_BYTES
from garnish.files.regular import check_regular

#: Largest Parquet file, bytes.
_MOST = 2**36
#: Folder → names of the columns that are taken for it.
_COLUMNS: Mapping[str, Sequence[str]] = {
    "images": ("image", "img", "picture", "rgb", "pixel_values"),
    "masks": ("annotation", "label", "labels", "mask", "segmentation_mask", "segmentation", "semantic_segmentation"),
    "depth": ("depth", "depth_map"),
    "normals": ("normal", "normals"),
    "edges": ("edge", "edges"),
    "saliency": ("saliency",),
}
#: What people call them by ``--column`` → folder.
_SHORT = {"image": "images", "seg": "masks"}
_SHARD = re.compile(r"(.+?)-[0-9]{5}-of-[0-9]{5}(?:-[0-9a-f]+)?")
#: First bytes → suffix.
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"II*\0": ".tif", b"MM\0*": ".tif", b"GIF8": ".gif"}


def parquet_files(source: Path) -> dict[str, list[Path]]:
    """Split → its Parquet files, in order: of ``train-00000-of-00002.parquet`` "train", of ``train/0000.parquet`` too.

    Args:
        source: a folder, which is looked through with the folders right below it, or one file. Empty: there are none.

    Raises:
        DataError: files of one split in several folders, which are several configurations of a set.
    """
    if source.is_dir():
        files = sorted([*source.glob("*.parquet"), *source.glob("*/*.parquet")])
    else:
        files = [source] if source.suffix.lower() == ".parquet" else []
    found: dict[str, list[Path]] = {}
    for file in files:
        shard = _SHARD.fullmatch(file.stem)
        split = shard[1] if shard else file.parent.name if file.stem.isdigit() else file.stem
        found.setdefault(re.sub(r"[^\w.-]", "_", split).lstrip(".") or "train", []).append(file)
    for split, shards in found.items():
        if len({file.parent for file in shards}) > 1:
            places = " and ".join(dict.fromkeys(str(file.parent) for file in shards))
            raise DataError(f"{source}: split {split!r} lies in {places}; give one of these folders")
    return found


def unpack_parquet(
    files: Mapping[str, Sequence[Path]], out: str | Path, columns: Sequence[str] = ()
) -> dict[str, dict[str, int]]:
    """Write the files that Parquet files hold, as they are: ``SPLIT/images``, ``SPLIT/masks``, ``SPLIT/depth``.

    Args:
        files: split → its files.
        out: the folder to write; must not exist; it appears when it is complete.
        columns: ``image=COLUMN``, ``seg=COLUMN`` or ``FOLDER=COLUMN``; none: they are told by their usual names.

    Returns:
        Split → folder → number of files.

    Raises:
        MissingExtraError: pyarrow is not installed. DataError: damaged files, no column of pictures, ``out`` exists.
        OptionError: a column that is not there, or is none of pictures.
    """
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("Parquet files are read by pyarrow; pip install 'garnish[hf]'") from None
    folder = given_path(out, "out")
    if os.path.lexists(folder):
        raise DataError(f"{folder}: exists already; name another folder, or move it away")
    chosen = _asked(columns)
    with growing_folder(folder, DataError) as made:
        counts: dict[str, dict[str, int]] = {}
        for split, shards in files.items():
            told: Counter[str] = Counter()
            names: set[str] = set()
            for shard in shards:
                try:
                    for row in _rows(shard, chosen):
                        told.update(_write_row(row, made / split, names, f"{shard}, row {told['images']}"))
                except (pyarrow.ArrowException, OSError) as error:
                    raise DataError(f"{shard}: cannot be read ({one_line(error, 120)}); fetch it again") from None
            counts[split] = dict(told)
    return counts


def _asked(columns: Sequence[str]) -> dict[str, str]:
    """Folder → column, as ``--column`` says."""
    found: dict[str, str] = {}
    for text in columns:
        name, equals, column = text.partition("=")
        place = _SHORT.get(name, name)
        if not equals or not column or not re.fullmatch(r"\w+", place):
            raise OptionError(f"--column: {text!r}; write NAME=COLUMN, such as image=image or seg=annotation")
        if place in found:
            raise OptionError(f"--column: {name} is given twice; give it once")
        found[place] = column
    if found and "images" not in found:
        found["images"] = "image"
    return found


def _rows(file: Path, asked: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Folder → struct or bytes, of each row."""
    from pyarrow import parquet, types

    check_regular(file, _MOST)
    opened = parquet.ParquetFile(file)
    schema = opened.schema_arrow
    pictures = [
        column.name
        for column in schema
        if types.is_binary(column.type)
        or types.is_large_binary(column.type)
        or (types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0)
    ]
    for place, column in asked.items():
        if column not in pictures:
            odd = "is no column of pictures" if column in schema.names else "is no column"
            raise OptionError(f"--column {place}={column}: {odd} of {file}{suggest(column, pictures)}")
    chosen = asked or {
        place: next(name for name in names if name in pictures)
        for place, names in _COLUMNS.items()
        if any(name in pictures for name in names)
    }
    if "images" not in chosen or len(chosen) < 2:
        raise DataError(
            f"{file}: which columns are pictures and labels? its columns of pictures: {', '.join(pictures) or 'none'};"
            " write --column image=COLUMN --column seg=COLUMN"
        )
    for batch in opened.iter_batches(batch_size=16, columns=list(dict.fromkeys(chosen.values()))):
        for row in batch.to_pylist():
            yield {place: row[column] for place, column in chosen.items()}


def suffix_of(data: bytes) -> str | None:
    """The ending for the bytes of a picture's file, by how they begin; None: of no kind that is known."""
    return ".webp" if data[:4] == b"RIFF" else _SUFFIXES.get(data[:4]) or _SUFFIXES.get(data[:3])


def _write_row(row: Mapping[str, Any], folder: Path, names: set[str], where: str) -> list[str]:
    """Write the files of one row; returns the folders they went to."""
    image = row["images"]
    named = image.get("path") if isinstance(image, Mapping) else None
    stem = re.sub(r"[^\w.-]", "_", Path(str(named)).stem).lstrip(".")[:200] if named else ""
    name = stem if stem and stem not in names else f"{len(names):06}"
    while name in names:
        name += "_"
    names.add(name)
    written = []
    for place, cell in row.items():
        data = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if data is None and place != "images":
            continue  # a picture without this label
        if not isinstance(data, bytes) or not data or len(data) > MAX_BYTES:
            raise DataError(
                f"{where}: {place}: {shown(data)} is no picture's file; the set may keep its files elsewhere"
            )
        if (suffix := suffix_of(data)) is None:
            raise DataError(f"{where}: {place}: begins with {data[:8]!r}, which is no PNG, JPEG, TIFF, GIF or WebP")
        to = folder / place / f"{name}{suffix}"
        with writing(to, "", DataError):
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(data)
        written.append(place)
    return written
