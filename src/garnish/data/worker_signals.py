"""Signals in processes that prepare batches: those that ask a run to stop are for the run's own process.

SLURM and systemd send them to every process of a job, a terminal to all of its group. The run's process notes them,
and needs the batches of the step that it finishes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def heed_parent_only(worker: int = 0) -> None:
    """Ignore signals that ask a run to stop, but not SIGTERM of the run's own process, as DataLoader sends it.

    For ``DataLoader(worker_init_fn=…)``; does what the system can, which is less on some.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if hasattr(signal, "sigwaitinfo") and parent is not None:
        # blocked, and taken by a thread, since a handler in Python does not learn who sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(parent.pid,), daemon=True).start()


def _end_when_told(parent: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
