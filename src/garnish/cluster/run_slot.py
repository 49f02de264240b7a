"""One place for runs on a node of a cluster: a thin actor, and the process beside it that trains.

The process is a worker of ``--jobs`` in all but who started it. It is the actor's child, not the actor itself, so that
a run that ends its process (for lack of memory, say) is told from a node that is lost, and so that SIGTERM reaches
training as it does elsewhere. The actor imports no torch; jobs and outcomes pass through it as bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal, final

from garnish.cluster.shared_folder import Needs, lacks

#: What a job came to: "done" with an outcome or fault as bytes, and the instructions that torch computes with there
#: (AVX2, AVX512); "fault", with a line, of this node; "ended", with the
#: exit code of a process that died; "unbegun", as that, before it could take a job.
Told = tuple[Literal["done"], bytes, str] | tuple[Literal["fault"], str] | tuple[Literal["ended", "unbegun"], int]


@final
class RunSlot:
    """An actor that has runs done one by one in a process, which is kept; :meth:`stop` comes in another thread.

    Args:
        conditions: the pickled conditions of the comparison.
        needs: what this node must have in common with the driver.
        threads: of the process.
        gpus: that it holds; 0: none is visible to it.
    """

    def __init__(self, conditions: bytes, needs: Needs, threads: int, gpus: float) -> None:
        self._conditions, self._needs, self._threads = conditions, needs, threads
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._stops = False
        self._turn = threading.Lock()
        self._processor = ""
        # before torch is imported; a node's own setting could be fewer, and their number decides the last digits
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if Path(needs.working_folder).is_dir():
            os.chdir(needs.working_folder)  # where relative paths of the recipe begin

    def placed(self) -> str:
        """What is wrong with this node; empty: nothing. It answers as soon as a node has been found."""
        return lacks(self._needs)

    def do(self, job: bytes) -> Told:
        """Do a pickled job, in the process that is there or in a new one."""
        if self._process is None or not self._process.is_alive():
            lacking = lacks(self._needs)
            if lacking:
                return "fault", lacking
            told = self._launch()
            if told is not None:
                return told
        assert self._connection is not None
        try:
            self._connection.send_bytes(job)
            data = self._next()
        except OSError:
            data = None
        return ("ended", self._code()) if data is None else ("done", data, self._processor)

    def stop(self) -> None:
        """Ask the process to stop, and wait for its checkpoint; none is started after that."""
        with self._turn:
            self._stops = True
            process = self._process
        if process is not None:
            process.terminate()
            process.join()

    def _launch(self) -> Told | None:
        """Start the process and wait until it can take a job; None: it can."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with self._turn:
            if self._stops:
                return "unbegun", 0
            process = context.Process(
                target=work_in_slot,
                args=(self._conditions, theirs, self._threads, os.getpid()),
                name="garnish compare",
                daemon=False,
            )
            process.start()
            self._process, self._connection = process, ours
        theirs.close()
        data = self._next()
        if data is None:
            return "unbegun", self._code()
        began, text = pickle.loads(data)  # of our own process
        if not began:
            process.join()
            return "fault", text
        self._processor = text
        return None

    def _next(self) -> bytes | None:
        """The next message of the process; None where it died."""
        assert self._connection is not None and self._process is not None
        wait([self._connection, self._process.sentinel])
        try:
            return self._connection.recv_bytes() if self._connection.poll() else None
        except (EOFError, OSError):
            return None

    def _code(self) -> int:
        assert self._process is not None
        self._process.join()
        return self._process.exitcode or 0


def work_in_slot(conditions: bytes, connection: Connection, threads: int, parent: int) -> None:
    """Main function of the process: say whether it can begin, then run jobs until the connection is closed."""
    from garnish.errors import one_line

    try:
        import torch

        from garnish.cluster.same_material import Sent
        from garnish.comparing.workers import settle, take_jobs

        settle(threads, parent)
        sent = pickle.loads(conditions)  # of our own driver
        assert isinstance(sent, Sent)
        sent.check()
    except Exception as error:  # whatever this node lacks is told by the driver
        connection.send((False, f"{type(error).__name__}: {one_line(error, 300)}"))
        return
    connection.send((True, torch.backends.cpu.get_cpu_capability()))
    take_jobs(sent.conditions, connection)
