"""Finding pictures that occur in two splits of a data set, which makes scores on them meaningless."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from garnish.data.folder import FolderDataset
from garnish.errors import DataError

_HEAD_BYTES = 1 << 16


def find_leaks(dataset: FolderDataset) -> Iterator[tuple[str, str]]:
    """(severity, message) for each other split that shares pictures (identical bytes) or names with this one.

    The message about two splits is the same for both of them.
    """
    description = dataset.description
    splits = description.known_splits()
    splits = splits if dataset.split in splits else [dataset.split, *splits]
    own = description.pictures(dataset.split)
    for split in splits:
        if split == dataset.split:
            continue
        try:
            other = description.pictures(split)
        except DataError:
            continue  # a missing or unreadable split is reported when that split is opened
        is_first = splits.index(dataset.split) < splits.index(split)
        first, second = (dataset.split, split) if is_first else (split, dataset.split)
        sizes, others = (_by_size({path for _, path in p}) for p in ((own, other) if is_first else (other, own)))
        pairs: list[tuple[Path, Path]] = []
        for size, files in others.items():
            if size in sizes:
                pairs += _equal(sizes[size], files)
        if pairs:
            one, two = min(pairs)
            yield (
                "warning",
                f"{one}: the same picture as {two} of split {second!r} ({len(pairs)} such pairs); "
                "remove it from one split",
            )
            continue
        names = {name for name, _ in own} & {name for name, _ in other}
        if names:
            yield (
                "note",
                f"{description.source}: {len(names)} names such as {min(names)!r} occur in {first!r} and "
                f"{second!r} with other contents; fine if each split has its own numbering, else rename them",
            )


def _by_size(files: set[Path]) -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = {}
    for file in sorted(files):
        found.setdefault(file.stat().st_size, []).append(file)
    return found


def _equal(ours: list[Path], theirs: list[Path]) -> list[tuple[Path, Path]]:
    """Pairs of identical files among files of equal size, compared by their first bytes, then as a whole."""
    heads: dict[bytes, list[Path]] = {}
    for file in ours:
        heads.setdefault(_digest(file, _HEAD_BYTES), []).append(file)
    pairs = []
    for other in theirs:
        for file in heads.get(_digest(other, _HEAD_BYTES), []):
            if file == other or _digest(file, -1) == _digest(other, -1):
                pairs.append((file, other))
    return pairs


def _digest(file: Path, num_bytes: int) -> bytes:
    with file.open("rb") as stream:
        return hashlib.blake2b(stream.read(num_bytes)).digest()
