"""What an input came to, and what its error says."""

from __future__ import annotations

import re
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import garnish
from garnish.errors import LONGEST, GarnishError, showable

#: Kinds of findings, as columns of the table.
FINDINGS = ("foreign", "hang", "memory", "event", "wrong", "message")
_GARNISH = f"{Path(garnish.__file__ or '').parent}/"
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|cannot allocate memory|out of memory", re.IGNORECASE)
#: A message begins with a file, an option or a key, and a colon.
_KEYED = re.compile(r".{1,300}?: ")


class Refusal(Exception):
    """The command line refused with exit code 2; its cause is the error, its text the line on standard error."""


class WrongReading(Exception):
    """What was accepted is not what the input says."""


@dataclass
class Verdict:
    """The result of one input: ``kind`` is "refused", "accepted" or one of :data:`FINDINGS`."""

    surface: str
    number: int
    kind: str
    told: str = ""  # the error, or what is wrong
    what: str = ""  # what was done to the specimen
    place: str = ""  # innermost frame of garnish
    seconds: float = 0.0

    @property
    def is_finding(self) -> bool:
        return self.kind in FINDINGS

    @property
    def key(self) -> str:
        """Findings of one cause have one key."""
        return f"{self.surface} | {self.kind} | {self.place} | {re.split(r'[:;(]', self.told)[0][:60]}"

    def plain(self) -> dict[str, object]:
        return asdict(self)


def judged(error: BaseException, folder: Path) -> tuple[str, str, str]:
    """(kind, told, place) of what reading an input raised."""
    place = place_of(error)
    told = f"{type(error).__name__}: {str(error)[:300]!r}"
    if any(isinstance(e, MemoryError) or _NO_MEMORY.search(str(e)[:2000]) for e in chain(error)):
        return "memory", told, place
    if isinstance(error, WrongReading):
        return "wrong", str(error)[:300], place
    if isinstance(error, Refusal | GarnishError):
        fault = fault_of(str(error), folder)
        return ("message", f"{fault}: {told}", place) if fault else ("refused", str(error), place)
    return "foreign", told, place


def fault_of(message: str, folder: Path) -> str:
    """What is wrong with a message for users; empty if nothing is."""
    if not message.strip():
        return "no message"
    if len(message) > LONGEST + 20:
        return f"{len(message)} characters"
    if message != showable(message):
        return "control characters"
    names = {folder.name, *(path.name for path in folder.rglob("*"))}
    if not any(name in message for name in names) and not _KEYED.match(message):
        return "does not say where"
    return ""


def chain(error: BaseException) -> list[BaseException]:
    """An error and what it was raised from or during."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and one not in found:
            found.append(one)
            left += [one.__cause__, one.__context__]
    return found


def place_of(error: BaseException) -> str:
    """``file.py:function`` of the innermost frame of garnish; of a refusal of the command line, that of its cause."""
    if isinstance(error, Refusal) and error.__cause__ is not None:
        error = error.__cause__
    try:
        frames = [
            (frame.f_code.co_filename, frame.f_code.co_name) for frame, _ in traceback.walk_tb(error.__traceback__)
        ]
    except RecursionError:
        return "deep"
    for file, name in reversed(frames):
        if file.startswith(_GARNISH):
            return f"{file.removeprefix(_GARNISH)}:{name}"
    outside = [(file, name) for file, name in frames if not file.endswith("/fuzz/watch.py")]
    return f"{Path(outside[-1][0]).name}:{outside[-1][1]}" if outside else ""
