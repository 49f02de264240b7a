"""What came of a bulk prediction: a part for each finished block, and ``manifest.json`` at the end.

All of it lies in :data:`FOLDER` of the place that maps are written to. ``run.json`` says what was asked, so that nobody
goes on with something else; a part is JSON lines, one for each picture. Who goes on reads the parts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

from garnish.checking.plain_data import Json
from garnish.cluster.bulk_inputs import BulkFile
from garnish.errors import DataError, OptionError, one_line, plural, shown
from garnish.files.strict_json import parse_json
from garnish.output import logger
from garnish.stores.place import Place

_log = logger(__name__)

#: Folder of the place, and files in it.
FOLDER = ".garnish-predict"
RUN, MANIFEST, PARTS = "run.json", "manifest.json", "parts"
_FORMAT = 1
#: Largest ``run.json``, and part, bytes.
_MOST_RUN, _MOST_PART = 2**20, 2**24
#: Longest reason of a failure that is kept, characters.
_REASON = 400
#: Parts that are read at a time.
_READERS = 16


@final
@dataclass(frozen=True)
class PictureRecord:
    """What came of one picture.

    Attributes:
        name: of its maps.
        picture: its path or address.
        version: of the file that was read.
        files: that were written, with their sizes in bytes; empty: none, see ``failed``.
        failed: why there are none; empty: there are.
        tries: how often it failed.
        shard: name of the shard that it lies in; empty: it is a file.
    """

    name: str
    picture: str
    version: str
    files: Mapping[str, int]
    failed: str = ""
    tries: int = 0
    shard: str = ""

    def plain(self) -> dict[str, Json]:
        """As it is written."""
        found: dict[str, Json] = {"name": self.name, "picture": self.picture, "version": self.version}
        if self.shard:
            found["shard"] = self.shard
        if self.failed:
            return {**found, "failed": one_line(self.failed, _REASON), "tries": self.tries}
        return {**found, "files": dict(self.files)}

    @classmethod
    def of(cls, plain: object) -> PictureRecord:
        """From :meth:`plain`; raises ValueError for anything else."""
        if not isinstance(plain, dict):
            raise ValueError("a line is no mapping")
        texts = [plain.get(key, "") for key in ("name", "picture", "version", "failed", "shard")]
        files, tries = plain.get("files", {}), plain.get("tries", 0)
        known = all(isinstance(text, str) for text in texts) and isinstance(files, dict) and type(tries) is int
        known = known and all(type(size) is int for size in files.values())
        if not known or not texts[0] or bool(files) == bool(texts[3]):
            raise ValueError(f"{shown(plain, 80)} is no picture's line")
        return cls(texts[0], texts[1], texts[2], files, texts[3], tries, texts[4])


@final
@dataclass(frozen=True)
class Part:
    """What came of one block.

    Attributes:
        records: of its pictures.
        shard: name and version of the shard that is finished with it; None: of no shard, or not of its end.
    """

    records: tuple[PictureRecord, ...]
    shard: tuple[str, str] | None = None

    def text(self, key: str) -> str:
        """As JSON lines."""
        head: dict[str, Json] = {"format": _FORMAT, "block": key, "pictures": len(self.records)}
        if self.shard is not None:
            head["ends"] = list(self.shard)
        return "".join(f"{json.dumps(line)}\n" for line in (head, *(record.plain() for record in self.records)))

    @classmethod
    def of(cls, text: str | bytes, key: str) -> Part:
        """From the text; raises ValueError where it is cut short, of another block, or no part."""
        head, *lines = [parse_json(line) for line in text.splitlines()]
        if not isinstance(head, dict) or head.get("format") != _FORMAT or head.get("block") != key:
            raise ValueError("it is not of this block")
        if head.get("pictures") != len(lines):
            raise ValueError("it is cut short")
        ends = head.get("ends")
        if ends is not None and not (isinstance(ends, list) and len(ends) == 2 and all(type(e) is str for e in ends)):
            raise ValueError("it ends no shard")
        return cls(tuple(map(PictureRecord.of, lines)), None if ends is None else (ends[0], ends[1]))


def part_name(key: str) -> str:
    """Name of a block's part in the place."""
    return f"{FOLDER}/{PARTS}/{key}.jsonl"


def read_part(place: Place, key: str) -> Part | None:
    """The part of a block; None: there is none, or it is damaged, which is logged."""
    if place.facts(part_name(key)) is None:
        return None
    try:
        return Part.of(place.read(part_name(key), most=_MOST_PART), key)
    except (DataError, ValueError, UnicodeDecodeError) as error:
        _log.warning("%s: %s is damaged (%s); its pictures are predicted again", place, part_name(key), one_line(error))
        return None


def read_parts(place: Place) -> Iterator[Part]:
    """All parts that are sound."""
    names = place.names(f"{FOLDER}/{PARTS}/*.jsonl")
    keys = [found[1] for name in names if (found := re.search(r"/([0-9a-f]{32})\.jsonl$", name))]
    with ThreadPoolExecutor(_READERS, "garnish-parts") as pool:
        yield from (part for part in pool.map(lambda key: read_part(place, key), keys) if part is not None)


@final
@dataclass(frozen=True)
class Earlier:
    """What earlier runs left.

    Attributes:
        records: name of a picture → what came of it; a success hides failures.
        shards: name and version of those that are finished.
    """

    records: Mapping[str, PictureRecord]
    shards: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, parts: Iterable[Part], current: Mapping[str, str]) -> Earlier:
        """Of parts, in any order.

        Args:
            parts: that were read.
            current: name → version of the files that are there now; what came of other versions is left out.
        """
        records: dict[str, PictureRecord] = {}
        shards = set()
        for part in parts:
            if part.shard is not None:
                shards.add(part.shard)
            for record in part.records:
                if current.get(record.shard or record.name) == record.version:
                    records[record.name] = better(records.get(record.name), record)
        return cls(records, frozenset(shards))

    def pending(self, files: Iterable[BulkFile], sizes: Mapping[str, int]) -> list[BulkFile]:
        """The files that are not finished: without record, failed, or with maps that are not there as written.

        A finished shard is done anew where a map of one of its pictures is missing.

        Args:
            files: that are to be predicted.
            sizes: name → bytes, of what the place holds.
        """
        lost = {
            record.shard or record.name
            for record in self.records.values()
            if any(sizes.get(name) != size for name, size in record.files.items())
        }
        found = []
        for file in files:
            if file.is_shard:
                is_done = (file.name, file.version) in self.shards
            else:
                record = self.records.get(file.name)
                is_done = record is not None and not record.failed
            if not is_done or file.name in lost:
                found.append(file)
        return found


def whole_part(place: Place, key: str) -> Part | None:
    """The part of a block whose maps are all there as written; else None."""
    part = read_part(place, key)
    files = {} if part is None else {name: size for record in part.records for name, size in record.files.items()}
    is_whole = all((facts := place.facts(name)) is not None and facts.size == size for name, size in files.items())
    return part if is_whole else None


def better(one: PictureRecord | None, other: PictureRecord) -> PictureRecord:
    """Of two records of a picture that with files; of two failures that of more tries."""
    if one is None or (one.failed and not other.failed):
        return other
    return other if one.failed and other.failed and other.tries > one.tries else one


def run_key(asked: Mapping[str, Json]) -> str:
    """A hash of what was asked, for the names of parts."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def begin_run(place: Place, asked: Mapping[str, Json]) -> None:
    """Write ``run.json``, or compare with what is there.

    Args:
        place: that maps are written to.
        asked: what is asked, by option.

    Raises:
        OptionError: the place holds the maps of another bundle or other options. DataError: it cannot be read.
    """
    name = f"{FOLDER}/{RUN}"
    if place.facts(name) is None:
        place.write(name, json.dumps({"format": _FORMAT, "asked": asked}, indent=1).encode())
        return
    remedy = f"choose another --out, or remove {place}/{FOLDER} to begin anew"
    try:
        plain: Any = parse_json(place.read(name, most=_MOST_RUN))
        before = plain["asked"] if plain["format"] == _FORMAT else None
        if not isinstance(before, dict):
            raise ValueError("of another format")
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{place}/{name}: is damaged ({one_line(error, 80)}); {remedy}") from error
    for key in dict.fromkeys([*before, *asked]):
        if before.get(key) != asked.get(key):
            was, now = shown(before.get(key), 70), shown(asked.get(key), 70)
            raise OptionError(f"--out {place}: was begun with {key} {was}, not {now}; {remedy}")


def write_manifest(
    place: Place, asked: Mapping[str, Json], records: Mapping[str, PictureRecord], before: int, seconds: float
) -> dict[str, Json]:
    """Write ``manifest.json``; returns what is in it.

    Args:
        place: that maps are written to.
        asked: as for :func:`begin_run`.
        records: name → what came of each picture of this run's inputs.
        before: how many of them were predicted by earlier runs.
        seconds: that this run took.
    """
    failed = sorted((record for record in records.values() if record.failed), key=lambda record: record.name)
    found: dict[str, Json] = {
        "format": _FORMAT,
        "pictures": len(records),
        "predicted": len(records) - len(failed) - before,
        "left_out": before,
        "failed": len(failed),
        "bytes": sum(size for record in records.values() for size in record.files.values()),
        "seconds": round(seconds, 3),
        "asked": dict(asked),
        "failures": [record.plain() for record in failed],
    }
    place.write(f"{FOLDER}/{MANIFEST}", json.dumps(found, indent=1).encode())
    return found


def told_counts(manifest: Mapping[str, Any], place: Place) -> str:
    """The counts in a line."""
    told = f"{plural(manifest['pictures'], 'picture')}: {manifest['predicted']:,} predicted"
    if manifest["left_out"]:
        told += f", {manifest['left_out']:,} left out, for earlier runs predicted them"
    if manifest["failed"]:
        told += f", {manifest['failed']:,} not predicted"
    return f"{told}; {place}/{FOLDER}/{MANIFEST}"
