"""A fence of the kernel around a process: it, and all that it starts, writes to one folder only (Linux's Landlock).

Inputs are hostile, and what is tested may be wrong: a link to a device in the place of a file that is written once led
to the device's being replaced. The audit hook of :mod:`watch` refuses what Python code does; this holds for C as well.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, of the same number on every architecture
_NO_NEW_PRIVILEGES = 38
_WRITE_FILE = 1 << 1
#: Removing and making folders, files, devices, pipes, sockets and links; renaming between folders; truncating.
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 15))
_NETWORK = 0b10  # connections over TCP
_SCOPED = 0b11  # abstract sockets and signals of processes outside
#: The least version of the kernel's interface that has all of these.
_LEAST = 6


def is_possible() -> bool:
    """Whether this kernel has what :func:`fence` needs."""
    return os.name == "posix" and os.uname().sysname == "Linux" and _call(_CREATE, None, 0, 1) >= _LEAST


def fence(folder: Path) -> None:
    """Let this process write below a folder and to ``/dev/null`` only, open no connection and signal no other process.

    Raises:
        RuntimeError: the kernel cannot, and this is the administrator's process, which nothing else would hold back.
    """
    if not is_possible():
        if os.geteuid() == 0:
            raise RuntimeError("this kernel has no Landlock: run the fuzzer as a user who may not write elsewhere")
        return
    handled = struct.pack("<QQQ", _CHANGES, _NETWORK, _SCOPED)
    ruleset = _call(_CREATE, handled, len(handled), 0)
    for path, access in ((folder, _CHANGES), (Path(os.devnull), _WRITE_FILE)):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        failed = _call(_ADD, ruleset, 1, struct.pack("<Qi", access, handle), 0)
        os.close(handle)
        if failed:
            raise RuntimeError(f"{path}: the kernel refused the fence around it")
    if ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or _call(_RESTRICT, ruleset, 0):
        raise RuntimeError("the kernel refused the fence")
    os.close(ruleset)


def _call(number: int, *given: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, *given))
