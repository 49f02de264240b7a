"""Running the jobs of a comparison as they become possible, one by one in this process or in several others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

from garnish.comparing.arms import Arm
from garnish.comparing.conditions import Conditions
from garnish.comparing.live import Display
from garnish.comparing.outcomes import Done, Failed
from garnish.comparing.runs import carry_out, is_of_the_system, reason_of
from garnish.comparing.schedule import Job, RunPlan
from garnish.comparing.test_scores import measured
from garnish.errors import DataError

Say = Callable[[str], None]


class Crew(Protocol):
    """Runs jobs: :class:`Alone` in this process, :class:`garnish.comparing.workers.Workers` in several."""

    def is_free(self) -> bool:
        """Whether another job can be started."""

    def start(self, job: Job) -> None:
        """Start a job."""

    def wait(self) -> list[tuple[Job, Done]]:
        """Wait for finished jobs and return them with their outcomes; may be empty."""

    def close(self) -> None:
        """Stop all work; running jobs keep what they have so far."""


def perform(conditions: Conditions, job: Job, say: Say | None = None) -> Done:
    """Do one job; errors of the arm are returned as its outcome, errors of disk or data are raised."""
    if job.kind == "train":
        return carry_out(conditions, job.run, say)
    try:
        return measured(conditions, job.run, say)
    except (DataError, OSError):
        raise
    except Exception as error:
        if is_of_the_system(error):
            raise
        return Failed(reason=f"could not be measured: {reason_of(error)}")


@final
class Alone:
    """Runs one job after the other in this process."""

    def __init__(self, conditions: Conditions, say: Say | None = None) -> None:
        self.conditions, self.say = conditions, say
        self._job: Job | None = None

    def is_free(self) -> bool:
        """Whether no job is waiting to run."""
        return self._job is None

    def start(self, job: Job) -> None:
        """Note a job, which :meth:`wait` runs."""
        self._job = job

    def wait(self) -> list[tuple[Job, Done]]:
        """Run the noted job and return it with its outcome."""
        assert self._job is not None
        job, self._job = self._job, None
        return [(job, perform(self.conditions, job, self.say))]

    def close(self) -> None:
        """Nothing to stop."""


def sweep(plan: RunPlan, crew: Crew, display: Display, arm_done: Callable[[Arm], None]) -> None:
    """Run all jobs of a plan.

    Args:
        plan: gives the jobs and records their outcomes.
        crew: runs the jobs.
        display: shows progress.
        arm_done: called when an arm is done or has failed.

    Raises:
        BundleError, DataError, OSError: a fault that affects every arm, such as a full disk.
        SystemExit: asked to stop; running runs have written checkpoints.
    """
    active: set[Job] = set()
    told = {name for name, arm in plan.conditions.arms.items() if plan.status(arm)[0] != "unfinished"}
    while True:
        for job in plan.jobs():
            if not crew.is_free():
                break
            if job not in active:
                active.add(job)
                display.started(job)
                crew.start(job)
        if not active:
            return
        for job, outcome in crew.wait():
            active.discard(job)
            plan.note(job, outcome)
            display.finished(job, outcome)
            arm = plan.conditions.arms[job.run.arm]
            if arm.name not in told and plan.status(arm)[0] != "unfinished":
                told.add(arm.name)
                arm_done(arm)
