"""Runs inputs of surfaces in processes that are replaced when they die, and collects the verdicts."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import fence
from .damage_files import OUTSIDE
from .surface import Surface
from .verdicts import Verdict
from .worker import work

#: Seconds an input may take.
LIMIT = 10.0
#: Bytes that an input may take above what the process has after importing and making specimens.
MEMORY = 2 * 2**30
#: Exit code of a process in which the fuzzer itself failed.
_OWN_FAULT = 70
#: Inputs after which a process is replaced, so that what it keeps does not add up.
_MOST = 400


def run(
    surface: Surface, numbers: Sequence[int], seed: int, limit: float = LIMIT, memory: int = MEMORY
) -> Iterator[Verdict]:
    """The verdicts on inputs by number, in order."""
    if not fence.is_possible() and os.geteuid() == 0:
        raise RuntimeError("this kernel has no Landlock: run the fuzzer as a user who may not write elsewhere")
    with tempfile.TemporaryDirectory(prefix=f"garnish-fuzz-{surface.name}-") as name:
        place = Path(name).resolve()
        (place / "seeds").mkdir()
        (place / OUTSIDE).write_text("beside every input\n")
        former = Path.cwd()
        os.chdir(place / "seeds")
        try:
            surface.make(place / "seeds")
        finally:
            os.chdir(former)
        left = list(numbers)
        while left:
            for verdict in _in_a_process(surface, place, left[:_MOST], seed, limit, memory):
                left.remove(verdict.number)
                yield verdict


def _in_a_process(
    surface: Surface, place: Path, numbers: list[int], seed: int, limit: float, memory: int
) -> Iterator[Verdict]:
    """The verdicts of one process; of the input it died with, what the stacks say."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        code = _OWN_FAULT
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as answers:
                work(surface, place, numbers, seed, limit, memory, answers)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    started: int | None = None
    began = time.monotonic()
    try:
        with os.fdopen(reading, "rb", buffering=0) as stream:
            for line in _lines(stream.fileno(), 3 * limit + 60):
                told = json.loads(line)
                if "start" in told:
                    started, began = told["start"], time.monotonic()
                else:
                    started = None
                    yield Verdict(**told)
    finally:
        code = _end(child)
    if code == _OWN_FAULT:
        raise RuntimeError(
            f"the fuzzer failed at {surface.name}:{seed}:{started}: {(place / 'errors.txt').read_text()[-2000:]}"
        )
    if started is not None:
        stacks = (place / "stacks.txt").read_text()
        frames = re.findall(r'File "[^"]*/garnish/([^"]+)", line \d+ in (\w+)', stacks)
        at = ":".join(frames[0]) if frames else ""
        seconds = time.monotonic() - began
        kind = "hang" if "Timeout" in stacks or seconds > limit else "foreign"
        what = (place / "what.txt").read_text()
        told = f"the process ended and told nothing: {(place / 'errors.txt').read_text(errors='replace')[-300:]}"
        yield Verdict(surface.name, started, kind, told, what, at, round(seconds, 1))


def _end(child: int) -> int:
    """Wait a moment for a process to end, then kill it; its exit code."""
    for _ in range(100):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _lines(handle: int, patience: float) -> Iterator[bytes]:
    """Lines of a pipe; ends at its end, or when nothing came for so many seconds."""
    rest = b""
    while select.select([handle], [], [], patience)[0]:
        piece = os.read(handle, 1 << 16)
        if not piece:
            return
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
