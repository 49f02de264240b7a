"""Faults on purpose, one of each kind, which the fuzzer must find: it is what its own test reads."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import ClassVar

from garnish.errors import DataError

from .. import fence
from ..damage_files import OUTSIDE
from ..surface import Damage, Surface
from ..verdicts import WrongReading
from ..worker import command


def _memory(folder: Path) -> None:
    taken = [bytearray(2**23) for _ in range(20)]  # asked for, and never touched
    raise DataError(f"{folder.name}: {len(taken)} were had")


def _mapped(folder: Path) -> None:
    with mmap.mmap(-1, 3 * 2**25) as shared:  # what no bound on data sees, and is given back
        for page in range(0, len(shared), 4096):
            shared[page] = 1


def _swallowed(folder: Path) -> None:
    try:
        bytearray(2**36)
    except MemoryError:
        raise DataError(f"{folder.name}: is damaged") from None


def _imported(folder: Path) -> None:
    __import__("bait")


def _executed(folder: Path) -> None:
    exec(compile((folder / "bait.py").read_text(), "bait.py", "exec"), {})


def _died(folder: Path) -> None:
    os._exit(3)


def _in_c(folder: Path) -> None:
    re.compile("(a|a)*$").match("a" * 40 + "b")


def _deaf(folder: Path) -> None:
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # as C code that does not come back
    time.sleep(100)


def _told(text: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        error = DataError()
        error.args = (text.format(folder.name),)
        raise error

    return read


def _printed(folder: Path) -> None:
    print("a title \x1b]0;here\x07")


def _lost(folder: Path) -> None:
    (folder / "kept.txt").write_text("changed")


def _left(folder: Path) -> None:
    (folder / "left.tmp").write_text("here")


def _wrong(folder: Path) -> None:
    raise WrongReading("3 classes were read, the file has 2")


def _elsewhere(folder: Path) -> None:
    (folder.parent / "elsewhere").write_text("")


def _removed(folder: Path) -> None:
    (folder.parent / "what.txt").unlink()


def _in_c_elsewhere(folder: Path) -> None:
    made = folder.parents[1] / f"{folder.parent.name}-elsewhere"
    if fence.is_possible() and ctypes.CDLL(None).mkdir(bytes(made), 0o700) == 0:  # no audit hook sees this
        made.rmdir()
        raise WrongReading("there is no fence")
    raise DataError(f"{folder.name}: the kernel refused to write elsewhere")


def _through_a_link(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / OUTSIDE)
    (folder / "link").resolve().rename(folder / "taken")


def _by_link(folder: Path) -> None:
    (folder / "trap.link.safetensors").write_text("to a device")


def _started(folder: Path) -> None:
    subprocess.run(["true"], check=True)


def _endless(folder: Path) -> None:
    while True:
        time.sleep(0.01)


def _waiting(folder: Path) -> None:
    (folder / "trap.pipe").read_bytes()


def _raised(folder: Path) -> None:
    raise KeyError("here")


def _refused(folder: Path) -> None:
    raise DataError(f"{folder.name}: is damaged; replace it")


def _by_command(folder: Path) -> None:
    command("info", "no/such/bundle")


#: name → what it does and the kind that it must be found as.
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "raised": (_raised, "foreign"),
    "died": (_died, "foreign"),
    "endless": (_endless, "hang"),
    "waiting": (_waiting, "hang"),
    "in_c": (_in_c, "hang"),
    "deaf": (_deaf, "hang"),
    "memory": (_memory, "memory"),
    "mapped": (_mapped, "memory"),
    "swallowed": (_swallowed, "memory"),
    "imported": (_imported, "event"),
    "executed": (_executed, "event"),
    "started": (_started, "event"),
    "elsewhere": (_elsewhere, "event"),
    "removed": (_removed, "event"),
    "through a link": (_through_a_link, "event"),
    "by link": (_by_link, "event"),
    "in c elsewhere": (_in_c_elsewhere, "refused"),
    "wrong": (_wrong, "wrong"),
    "lost": (_lost, "wrong"),
    "left": (_left, "wrong"),
    "printed": (_printed, "message"),
    "nowhere": (_told("it is damaged"), "message"),
    "two_lines": (_told("{}: is\ndamaged"), "message"),
    "long": (_told("{}: " + "x" * 3000), "message"),
    "sound": (lambda folder: None, "accepted"),
    "refused": (_refused, "refused"),
    "by_command": (_by_command, "refused"),
}


class Planted(Surface):
    """Each crafted input names a fault, which reading it commits."""

    name: ClassVar[str] = "planted"

    def make(self, folder: Path) -> None:
        (folder / "one").mkdir()
        (folder / "one" / "kept.txt").write_text("kept")

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(1.0, lambda draw, folder: _write(folder, "sound"))]

    def crafted(self) -> Mapping[str, Damage]:
        return {name: _writer(name) for name in FAULTS}

    def read(self, folder: Path, draw: Random) -> None:
        FAULTS[(folder / "fault.txt").read_text()][0](folder)


def _writer(name: str) -> Damage:
    return lambda draw, folder: _write(folder, name)


def _write(folder: Path, name: str) -> str:
    (folder / "fault.txt").write_text(name)
    return name
