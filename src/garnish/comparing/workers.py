"""Worker processes that run jobs in parallel, and stop when the process that started them ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import final

from garnish.comparing.conditions import Conditions
from garnish.comparing.job_queue import perform
from garnish.comparing.outcomes import Done, Failed, Outcome
from garnish.comparing.schedule import Job
from garnish.errors import GarnishError, one_line
from garnish.training.signals import StopRequest

#: Seconds between checks for a dead parent and for signals.
_LOOK = 0.5


@final
@dataclass(frozen=True)
class _Ready:
    """Message: a process has started."""


@final
@dataclass(frozen=True)
class SweepFault:
    """Message: a fault that affects every arm, in one line."""

    line: str


_Answer = Done | _Ready | SweepFault


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    connection: Connection
    job: Job | None = None
    is_ready: bool = False


@final
class Workers:
    """Up to ``jobs`` processes, each of which runs one job at a time; a context manager.

    If a process dies (for lack of memory, say), only its own job fails. SIGTERM and Ctrl-C reach the processes as
    SIGTERM: they write a checkpoint after the current pass.

    Args:
        conditions: shared by all runs; each process builds its own.
        jobs: largest number of processes.
    """

    def __init__(self, conditions: Conditions, jobs: int) -> None:
        self.conditions, self.jobs = conditions, jobs
        self.threads = max((os.cpu_count() or 1) // jobs, 1)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._requests = StopRequest()

    def __enter__(self) -> Workers:
        self._requests.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close()
        finally:
            self._requests.__exit__(*exc)

    def is_free(self) -> bool:
        """Whether another job can be started."""
        return self._requests.number is None and sum(w.job is not None for w in self._workers) < self.jobs

    def start(self, job: Job) -> None:
        """Start a job, in an idle process or a new one."""
        worker = next((w for w in self._workers if w.job is None and w.process.is_alive()), None) or self._launch()
        worker.job = job
        with contextlib.suppress(OSError):  # it is dead already, which wait() finds out
            worker.connection.send(job)

    def wait(self) -> list[tuple[Job, Done]]:
        """Wait half a second at most; returns finished jobs with their outcomes.

        Raises:
            SystemExit: asked to stop. GarnishError: a fault that affects every arm.
        """
        self._stop_if_asked()
        busy = [worker for worker in self._workers if worker.job is not None]
        wait([each for w in busy for each in (w.connection, w.process.sentinel)], timeout=_LOOK)
        done: list[tuple[Job, Done]] = []
        for worker in busy:
            job = worker.job
            assert job is not None
            answer: _Answer | None = None
            lives = worker.process.is_alive()  # checked before polling, so that no answer is missed
            if worker.connection.poll():
                with contextlib.suppress(EOFError, OSError):
                    answer = worker.connection.recv()
            elif lives:
                continue
            if isinstance(answer, _Ready):
                worker.is_ready = True
                continue
            worker.job = None
            if answer is None:
                self._workers.remove(worker)
                worker.process.join()
                self._stop_if_asked()
                if not worker.is_ready:
                    raise GarnishError(
                        f"compare: a process for --jobs {self.jobs} ended with code {worker.process.exitcode} before it"
                        " began; use --jobs 1"
                    )
                reason = f"its process ended {how_it_ended(worker.process.exitcode)}"
                done.append((job, note_death(self.conditions, job, reason)))
            elif isinstance(answer, SweepFault):
                raise GarnishError(answer.line)
            else:
                done.append((job, answer))
        return done

    def close(self) -> None:
        """Ask all processes to stop, and wait for their checkpoints."""
        for worker in self._workers:
            if worker.job is not None:
                worker.process.terminate()
            worker.connection.close()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    def _stop_if_asked(self) -> None:
        if self._requests.number is not None:
            number = self._requests.number
            self.close()
            raise SystemExit(128 + number)

    def _launch(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(self.conditions, theirs, self.threads, os.getpid()),
            name="garnish compare",
            daemon=False,
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker


def how_it_ended(code: int | None) -> str:
    """In words, how a process ended of itself, with the likely reason where a code tells one."""
    how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
    return f"{how}{'; most likely out of memory' if code == -signal.SIGKILL else ''}"


def note_death(conditions: Conditions, job: Job, reason: str) -> Outcome:
    """The outcome of a job whose process died: what it stored before, or else that it failed, which is stored."""
    outcome = Failed(reason=reason)
    if job.kind == "train":
        key = conditions.key(job.run)
        with conditions.store.lock(key):
            known = conditions.store.outcome(key, job.run)
            if known is not None:
                return known
            conditions.store.finish(key, outcome)
    return outcome


def serve(conditions: Conditions, connection: Connection, threads: int, parent: int) -> None:
    """Main function of a worker process: run jobs until the connection is closed."""
    settle(threads, parent)
    with contextlib.suppress(OSError):
        connection.send(_Ready())
    take_jobs(conditions, connection)


def settle(threads: int, parent: int) -> None:
    """Prepare a process for jobs: its threads, its signals, and its end when the process ``parent`` is gone."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and passes it on as SIGTERM
    torch.set_num_threads(min(torch.get_num_threads(), threads))
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def take_jobs(conditions: Conditions, connection: Connection) -> None:
    """Run the jobs that come over a connection, and send each outcome or :class:`SweepFault`, until it is closed."""
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: _Answer = perform(conditions, job)
        except (GarnishError, OSError) as error:
            answer = SweepFault(one_line(error, 2000))
        try:
            connection.send(answer)
        except OSError:  # the parent is gone; the outcome is in the store
            return


def _follow(parent: int) -> None:
    """Stop this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
