"""The order of work: jobs as they become possible, one after the other in this process or several in others."""

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
    """Who does the work."""

    def is_free(self) -> bool:
        """Whether another job can be started."""

    def start(self, job: Job) -> None:
        """Begin a job."""

    def wait(self) -> list[tuple[Job, Done]]:
        """Jobs that were done meanwhile, with what they came to; may be none."""

    def close(self) -> None:
        """End all work; what is under way is kept as far as it is."""


def perform(conditions: Conditions, job: Job, say: Say | None = None) -> Done:
    """Do one job; what is wrong with the arm is in what it gives, what is wrong with the machine is raised."""
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
    """Does one job after the other in this process."""

    def __init__(self, conditions: Conditions, say: Say | None = None) -> None:
        self.conditions, self.say = conditions, say
        self._job: Job | None = None

    def is_free(self) -> bool:
        """See :class:`Crew`."""
        return self._job is None

    def start(self, job: Job) -> None:
        """See :class:`Crew`."""
        self._job = job

    def wait(self) -> list[tuple[Job, Done]]:
        """See :class:`Crew`."""
        assert self._job is not None
        job, self._job = self._job, None
        return [(job, perform(self.conditions, job, self.say))]

    def close(self) -> None:
        """See :class:`Crew`."""


def sweep(plan: RunPlan, crew: Crew, display: Display, arm_done: Callable[[Arm], None]) -> None:
    """Do everything that a plan holds.

    Args:
        plan: what is to be done; keeps what it came to.
        crew: who does it.
        display: is told how it goes.
        arm_done: called when an arm is done or has failed.

    Raises:
        BundleError, DataError, OSError: something that every arm would meet, such as a full disk.
        SystemExit: asked to stop; runs under way have written checkpoints.
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
