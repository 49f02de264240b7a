"""How often a run may be started again: a node that dies is not its fault, a process that keeps dying is."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import final

from garnish.comparing.conditions import Conditions
from garnish.comparing.outcomes import Outcome
from garnish.comparing.schedule import Job
from garnish.comparing.workers import how_it_ended, note_death

#: Times that a run's process may die, and that its place may be lost, before it has failed, without a new checkpoint.
MOST_DEATHS, MOST_LOSSES = 3, 10


@final
@dataclass
class _Count:
    deaths: int = 0
    losses: int = 0
    checkpoint: int = 0


@final
class Losses:
    """Counts, for each job, what ended it; a new checkpoint begins the counts anew.

    Args:
        conditions: of the comparison; a run that failed is stored as failed.
    """

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self._counts: dict[Job, _Count] = {}

    def died(self, job: Job, code: int) -> Outcome | None:
        """A job's process ended of itself; its outcome if it is not to be started again."""
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM):  # asked to, but not by us: its node shuts down
            return self.lost(job)
        count = self._count(job)
        count.deaths += 1
        if count.deaths < MOST_DEATHS:
            return None
        return note_death(
            self.conditions, job, f"its process ended {how_it_ended(code)} ({MOST_DEATHS} times at the same point)"
        )

    def lost(self, job: Job) -> Outcome | None:
        """A job's node or place was lost; its outcome if it is not to be started again."""
        count = self._count(job)
        count.losses += 1
        if count.losses < MOST_LOSSES:
            return None
        return note_death(
            self.conditions, job, f"the node that it ran on was lost {MOST_LOSSES} times at the same point"
        )

    def _count(self, job: Job) -> _Count:
        """The counts of a job, which begin anew with each checkpoint."""
        written = self._checkpoint(job)
        count = self._counts.setdefault(job, _Count(checkpoint=written))
        if count.checkpoint != written:
            count = self._counts[job] = _Count(checkpoint=written)
        return count

    def _checkpoint(self, job: Job) -> int:
        """When the last checkpoint of a run was written, in nanoseconds; 0: there is none."""
        if job.kind == "measure":
            return 0
        file = self.conditions.store.training(self.conditions.key(job.run)) / "last" / "state.safetensors"
        try:
            return file.stat().st_mtime_ns
        except OSError:
            return 0
