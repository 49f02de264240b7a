"""What an input did beside its result: files run, processes, connections, writes elsewhere, memory, time."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import garnish

#: Modules of the standard library that nothing here imports: an input asked for them.
BAITS = ("this", "antigravity", "unittest.__main__", "turtledemo", "idlelib", "bait")

_GARNISH = str(Path(garnish.__file__ or "").parent)
_FORBIDDEN = frozenset(
    [
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "pty.spawn",
        "os.startfile",
        "socket.connect",
        "socket.bind",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.sendto",
        "urllib.Request",
        "pickle.find_class",
        "sys.addaudithook",
        "sys.settrace",
        "sys.setprofile",
        "os.kill",
        "os.chown",
        "shutil.unpack_archive",
    ]
)
_CHANGES = {  # event → number of its arguments that are paths which it changes
    **dict.fromkeys(
        ["os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "shutil.rmtree", "os.chdir", "os.utime"], 1
    ),
    **dict.fromkeys(["os.rename", "os.link", "shutil.move", "shutil.copyfile"], 2),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Hang(BaseException):
    """The time is over; no ``except Exception`` of what is tested takes it for its own."""


class Forbidden(BaseException):
    """Raised in the place of what an input may not do, so that it is not done."""


class Started(Forbidden):
    """It would start further processes of itself to train in, as its devices ask: no stranger's file is run."""


class Watch:
    """An audit hook of this process for ever, and bounds on memory and time for each input.

    What is forbidden is refused before it is done, not only noted.

    Args:
        here: the folder of inputs, the only one that may be written to.
        limit: seconds an input may take.
        memory: bytes an input may take above what the process has now.
        trace: where the stacks of a process go that did not come back by itself.
    """

    def __init__(self, here: Path, limit: float, memory: int, trace: IO[str]) -> None:
        self.here, self.limit, self.memory, self.trace = os.path.realpath(here), limit, memory, trace
        self.events: list[str] = []
        self._armed = False
        self._within = False
        paths = {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix}
        paths |= {_GARNISH, str(Path(__file__).parent)}
        self._installed = tuple(os.path.realpath(path) + os.sep for path in paths)
        self.base = _status("VmRSS")
        # What is asked for (VmData) is refused a little above the bound, before the machine is full; what is taken
        # (the highest resident size) is compared with it. Of the address space torch maps much that it never takes.
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + memory + memory // 8, most))
        self._refs = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        signal.signal(signal.SIGALRM, self._alarm)
        sys.addaudithook(self._see)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Watch what happens in a ``with`` block; raises :class:`Hang` in it when the time is over."""
        self.events.clear()
        os.pwrite(self._refs, b"5", 0)  # the highest resident size starts anew
        # second line: C code that never returns to the interpreter ends with the whole process
        faulthandler.dump_traceback_later(2 * self.limit + 0.5, exit=True, file=self.trace)
        self._began = time.monotonic(), time.process_time()
        signal.setitimer(signal.ITIMER_REAL, self.limit)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()

    def grown(self) -> int:
        """Bytes that the resident size reached above the base since :meth:`armed` began."""
        return _status("VmHWM") - self.base

    def _alarm(self, _signal: int, _frame: object) -> None:
        wall, used = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        if 0.1 * wall < used < self.limit and wall < 1.8 * self.limit:  # it works, and others take the machine's time
            signal.setitimer(signal.ITIMER_REAL, 0.1 * self.limit)
            return
        raise Hang

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._armed or self._within:
            return
        self._within = True
        try:
            if (
                event == "subprocess.Popen"
                and args[0] == sys.executable
                and "/fabric/strategies/launchers/" in _caller(1)
            ):
                raise Started
            if told := self._judged(event, args):
                self.events.append(f"{told} by {_caller()}")
                raise Forbidden(told)
        finally:
            self._within = False

    def _judged(self, event: str, args: tuple[Any, ...]) -> str | None:
        if event == "socket.bind" and args[1] == ("", 0) and "/fabric/plugins/environments/" in _caller():
            return None  # looks for a free port for processes of its own
        if event in _FORBIDDEN:
            return f"{event} {str(args)[:120]}"
        if event == "open":
            path, mode, flags = args
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool(flags and flags & _WRITING)
            return f"open {path!r} for writing" if writes and not self._is_here(path) else None
        if event == "exec":
            file = args[0].co_filename
            if file.startswith("<"):
                return "exec of text" if _caller().startswith(_GARNISH) else None
            return None if self._is_installed(file) else f"exec of {file}"
        if event == "compile":
            file = args[1]
            if not isinstance(file, str | bytes) or os.fsdecode(file).startswith("<"):
                return None
            return None if self._is_installed(os.fsdecode(file)) else f"compile of {file!r}"
        if event == "import":
            named = args[0] in BAITS or args[0].split(".")[0] in BAITS
            return f"import of {args[0]}" if named else None
        if event == "marshal.loads":
            return None if "importlib" in _caller() else "marshal.loads"
        if event == "ctypes.dlopen":
            name = args[0]
            odd = isinstance(name, str) and "/" in name and not self._is_installed(name)
            return f"ctypes.dlopen {name!r}" if odd else None
        paths = args[: _CHANGES.get(event, 0)]
        if any(not self._is_here(path) for path in paths):
            return f"{event} {paths!r}"
        return None

    def _is_here(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True  # a handle, which was opened before
        real = os.path.realpath(os.fsdecode(path))
        return real == "/dev/null" or real == self.here or real.startswith(self.here + os.sep)

    def _is_installed(self, file: str) -> bool:
        return os.path.realpath(file).startswith(self._installed) or not file.startswith("/")


def _status(name: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _caller(outside: int = 0) -> str:
    """File and function of the innermost frame outside this file; with 1, outside the module of processes as well."""
    skipped = (__file__, subprocess.__file__)[: outside + 1]
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in skipped:
        frame = frame.f_back  # type: ignore[assignment]
    return "nobody" if frame is None else f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
