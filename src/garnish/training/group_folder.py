"""The folder of a run that torchrun may start again: who began it is noted in it. Nothing here needs torch."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, TypedDict

from garnish.checking.plain_data import Reading, integers, read_as
from garnish.errors import GarnishError
from garnish.files.atomic import write_file, writing
from garnish.files.regular import read_regular
from garnish.files.strict_json import parse_json
from garnish.training.torchrun import Group

#: In the folder of a run: the torchrun that began it.
NOTE = ".torchrun"
#: Largest note that is read, bytes.
_MOST_BYTES = 16_384
#: Runs that this process began so far, by ``out``.
_begun: Counter[str] = Counter()


class GroupNote(TypedDict):
    """``run_id``: torchrun's ``--rdzv-id``. ``number``: of the runs that one program begins with one ``out``."""

    run_id: str
    number: Annotated[int, integers(1, 10**9)]


def next_note(group: Group, out: str) -> GroupNote:
    """The note of the run that begins now: a program that is started again begins its runs in the same order."""
    _begun[out] += 1
    return {"run_id": group.run_id, "number": _begun[out]}


def begun_before(wanted: Path, note: GroupNote) -> Path | None:
    """The folder ``wanted``, ``wanted-2``, … with this note; None: the run has none yet.

    Whatever else is there is of somebody else, and left alone.
    """
    if wanted.name in ("", ".."):
        wanted = wanted.resolve()
    name = re.compile(re.escape(wanted.name) + "(-[0-9]{1,9})?")
    try:
        folders = [path for path in wanted.parent.iterdir() if name.fullmatch(path.name)]
    except (FileNotFoundError, NotADirectoryError):
        return None
    for folder in sorted(folders, key=lambda path: (len(path.name), path.name)):
        if _note_in(folder) == note:
            return wanted.with_name(folder.name)
    return None


def write_note(folder: Path, note: GroupNote) -> None:
    """Note who begins a run.

    Raises:
        BundleError: the folder cannot be written to.
    """
    with writing(f"{folder / NOTE}:", ", then start again"):
        write_file(folder / NOTE, json.dumps(note).encode())


def _note_in(folder: Path) -> GroupNote | None:
    try:
        found: GroupNote = read_as(parse_json(read_regular(folder / NOTE, _MOST_BYTES)), GroupNote, "", Reading())
    except (OSError, ValueError, GarnishError):
        return None
    return found
