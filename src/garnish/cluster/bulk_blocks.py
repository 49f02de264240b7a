"""Blocks of pictures, each the work of one call of a worker; named by their content, so that nothing is done twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import final

from garnish.cluster.bulk_inputs import BulkFile

#: Most pictures of a block, and blocks that a worker has at least, so that none is left waiting for another at the end.
MOST_PICTURES, _BLOCKS_OF_A_WORKER = 64, 8


@final
@dataclass(frozen=True)
class Block:
    """Pictures that one worker predicts one after the other; or one shard of them.

    Attributes:
        files: pictures, or one shard alone.
        tries: name → how often it failed in earlier runs, of those that did.
    """

    files: tuple[BulkFile, ...]
    tries: Mapping[str, int]

    @property
    def shard(self) -> BulkFile | None:
        """The shard, where it is one."""
        return self.files[0] if self.files[0].is_shard else None

    def text(self) -> str:
        """As JSON, for :meth:`of`."""
        return json.dumps({"files": [asdict(file) for file in self.files], "tries": dict(self.tries)})

    @classmethod
    def of(cls, text: str) -> Block:
        """From the JSON of :meth:`text`."""
        plain = json.loads(text)
        return cls(tuple(BulkFile(**file) for file in plain["files"]), plain["tries"])


def block_key(run: str, block: Block) -> str:
    """Name of the part that says what came of a block: 32 digits of a hash of its content.

    Args:
        run: :func:`garnish.cluster.bulk_manifest.run_key`: of the bundle and the options.
        block: names, versions and earlier failures of its pictures count.
    """
    return _digest([run, *([file.name, file.version, block.tries.get(file.name, 0)] for file in block.files)])


def chunk_key(run: str, shard: BulkFile, number: int | str) -> str:
    """Likewise of the pictures of a shard: ``number`` counts so many of them at a time, ``end`` is after the last."""
    return _digest([run, shard.name, shard.version, number])


def planned_blocks(files: Sequence[BulkFile], tries: Mapping[str, int], workers: int) -> Iterator[Block]:
    """Blocks of so many files, shards first, for they take longest.

    Args:
        files: that are to be predicted.
        tries: name → how often it failed in earlier runs.
        workers: that there will be.
    """
    yield from (Block((file,), {}) for file in files if file.is_shard)
    pictures = [file for file in files if not file.is_shard]
    size = min(max(-(-len(pictures) // (_BLOCKS_OF_A_WORKER * workers)), 1), MOST_PICTURES)
    for start in range(0, len(pictures), size):
        chosen = tuple(pictures[start : start + size])
        yield Block(chosen, {file.name: tries[file.name] for file in chosen if file.name in tries})


def _digest(content: Sequence[object]) -> str:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
