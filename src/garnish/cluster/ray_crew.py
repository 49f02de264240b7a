"""Runs of a comparison on a Ray cluster: a crew whose places are actors, which start again what a lost node had."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, final

from garnish.cluster.losses import Losses
from garnish.cluster.room_for_runs import PerRun, alive, most_of
from garnish.cluster.run_slot import RunSlot, Told
from garnish.cluster.same_material import Sent
from garnish.cluster.shared_folder import Needs
from garnish.comparing.conditions import Conditions
from garnish.comparing.job_queue import Say
from garnish.comparing.outcomes import Done, Outcome
from garnish.comparing.schedule import Job
from garnish.comparing.workers import SweepFault
from garnish.errors import GarnishError, one_line, plural
from garnish.training.signals import StopRequest

#: Seconds between looks for signals, between counts of the nodes, and between lines on runs that wait for a node.
_LOOK, _COUNT, _REMIND = 0.5, 5.0, 60.0
#: Processes that may end one after the other before they could begin.
_MOST_UNBEGUN = 3


@dataclass(eq=False)
class _Place:
    """An actor, whether it has been given a node, and the job that it does."""

    actor: Any
    placed: Any
    since: float
    job: Job | None = None
    ref: Any = None


@final
class RayCrew:
    """Runs jobs on a cluster; made by :func:`garnish.cluster.recruiting.on_ray`.

    A place is kept from one run to the next, so that imports are paid once. A run whose node or process dies is started
    again and goes on from its last checkpoint, within the bounds of :class:`Losses`. SIGTERM and Ctrl-C reach the runs
    as with ``--jobs``: they write a checkpoint.

    Args:
        ray: the module, connected.
        conditions: of the comparison.
        needs: what every node must see.
        each: what a run has.
        jobs: largest number of runs at once; None: as many as the nodes hold, which is counted as the sweep goes on.
        say: called with a line on what was lost, or is waited for.
    """

    def __init__(
        self, ray: ModuleType, conditions: Conditions, needs: Needs, each: PerRun, jobs: int | None, say: Say
    ) -> None:
        self.conditions, self.needs, self.each, self.jobs, self.say = conditions, needs, each, jobs, say
        self._ray = ray
        self._most, self._counted = 0, 0.0
        # whole paths, for a node has another working folder; the cache of features is bounded by each process's share
        out, store = str(conditions.out.resolve()), needs.folder
        options = dataclasses.replace(conditions.options, jobs=jobs or self._held(), out=out, store=store)
        sent = Sent.of(Conditions(conditions.recipe, options, conditions.trunk_facts))
        self._sent = ray.put(pickle.dumps(sent))
        self._places: list[_Place] = []
        self._again: deque[Job] = deque()
        self._losses = Losses(conditions)
        self._requests = StopRequest()
        self._unbegun = 0
        self._processors: set[str] = set()
        self._reminded = time.monotonic()

    def __enter__(self) -> RayCrew:
        self._requests.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close()
        finally:
            self._requests.__exit__(*exc)

    def is_free(self) -> bool:
        """Whether another run can be started, by the nodes that are there now or by ``jobs``."""
        if self._requests.number is not None:
            return False
        return len(self._busy()) + len(self._again) < (self.jobs or self._held())

    def start(self, job: Job) -> None:
        """Start a job, in an idle place or a new one, which may wait for a node."""
        place = next((each for each in self._places if each.job is None), None) or self._new()
        place.job, place.since = job, time.monotonic()
        place.ref = place.actor.do.remote(pickle.dumps(job))

    def wait(self) -> list[tuple[Job, Done]]:
        """Wait half a second at most; returns finished jobs with their outcomes.

        Raises:
            SystemExit: asked to stop. GarnishError: a fault that affects every arm, or the cluster is gone.
        """
        self._stop_if_asked()
        with self._connection_told():
            while self._again and len(self._busy()) < (self.jobs or self._held()):
                self.start(self._again.popleft())
            busy = {place.ref: place for place in self._busy()}
            if not busy:  # no node is left that could take what was lost
                time.sleep(_LOOK)
            ready = self._ray.wait(list(busy), num_returns=len(busy), timeout=_LOOK)[0] if busy else []
            found = [(busy[ref].job, self._outcome(busy[ref])) for ref in ready]
        self._remind()
        return [(job, outcome) for job, outcome in found if job is not None and outcome is not None]

    def close(self) -> None:
        """Ask all runs to stop, wait for their checkpoints, and give the places back."""
        errors = self._ray.exceptions.RayError
        stopping = []
        for place in self._places:
            with contextlib.suppress(errors, ConnectionError):
                if place.job is not None and self._is_placed(place):
                    stopping.append(place.actor.stop.remote())
        for ref in stopping:
            with contextlib.suppress(errors, ConnectionError):
                self._ray.get(ref)
        for place in self._places:
            with contextlib.suppress(errors, ConnectionError):
                self._ray.kill(place.actor)
        self._places.clear()
        self._again.clear()

    # ---- places -----------------------------------------------------------------------------------------------------

    def _busy(self) -> list[_Place]:
        return [place for place in self._places if place.job is not None]

    def _held(self) -> int:
        """How many runs the nodes hold, one at least."""
        if time.monotonic() > self._counted + _COUNT or not self._most:
            self._most = max(sum(self.each.fit_on(node) for node in alive(self._ray)), 1)
            self._counted = time.monotonic()
        return self._most

    def _new(self) -> _Place:
        actor = (
            self._ray.remote(RunSlot)
            .options(
                num_cpus=self.each.cpus,
                num_gpus=self.each.gpus,
                max_restarts=0,  # what to start again is decided here, with the counts
                max_concurrency=3,  # a run, what is asked about the place, and a request to stop
            )
            .remote(self._sent, self.needs, self.each.threads, self.each.gpus)
        )
        place = _Place(actor, actor.placed.remote(), time.monotonic())
        self._places.append(place)
        return place

    def _is_placed(self, place: _Place) -> bool:
        return bool(self._ray.wait([place.placed], timeout=0)[0])

    def _drop(self, place: _Place) -> None:
        self._places.remove(place)
        with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError):
            self._ray.kill(place.actor)

    # ---- what a job came to -----------------------------------------------------------------------------------------

    def _outcome(self, place: _Place) -> Done | None:
        """The outcome of a place's job; None if it is started again."""
        job, ref = place.job, place.ref
        assert job is not None
        place.job = place.ref = None
        try:
            told: Told = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise GarnishError(f"--on: a node could not start a run ({one_line(error.cause, 300)})") from None
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as error:
            self._drop(place)
            self._stop_if_asked()
            if getattr(error, "actor_init_failed", False):
                raise GarnishError(f"--on: a node could not start a run ({last_line(error)})") from None
            return self._ended(job, self._losses.lost(job), "its node or its place there was lost")
        if told[0] == "done":
            self._unbegun = 0
            answer = pickle.loads(told[1])  # of our own process
            if isinstance(answer, SweepFault):
                raise GarnishError(answer.line)
            self._note_processor(told[2])
            outcome: Done = answer
            return outcome
        self._stop_if_asked()
        if told[0] == "fault":
            raise GarnishError(f"--on: {told[1]}")
        if told[0] == "ended":
            return self._ended(job, self._losses.died(job, told[1]), f"its process ended (code {told[1]})")
        self._unbegun += 1
        if self._unbegun >= _MOST_UNBEGUN:
            raise GarnishError(
                f"--on: {_MOST_UNBEGUN} processes one after the other ended before they began, the last with code"
                f" {told[1]}; look at the memory of the nodes, or set fewer --jobs"
            )
        return self._ended(job, None, f"its process ended before it began (code {told[1]})")

    def _note_processor(self, name: str) -> None:
        """Say once that nodes add up sums in different ways."""
        before = len(self._processors)
        self._processors.add(name)
        if before == 1 and len(self._processors) == 2:
            self.say(
                f"nodes compute with {' and '.join(sorted(self._processors))}: a run's last digits depend on where it"
                " was; for equal ones use nodes of one kind"
            )

    def _ended(self, job: Job, outcome: Outcome | None, how: str) -> Outcome | None:
        """Start a job again, with a line, unless it has an outcome."""
        if outcome is None:
            self.say(f"{job.run}: {how}; it is started again, from its last checkpoint if there is one")
            self._again.append(job)
        return outcome

    def _remind(self) -> None:
        """Say once a minute what waits for a node."""
        now = time.monotonic()
        if now < self._reminded + _REMIND:
            return
        self._reminded = now
        waiting = [p for p in self._busy() if now > p.since + _REMIND and not self._is_placed(p)]
        number = len(waiting) + len(self._again)
        if number:
            self.say(
                f"{plural(number, 'run')}: waiting for a node with {self.each}; those there have"
                f" {most_of(alive(self._ray))}"
            )

    def _stop_if_asked(self) -> None:
        if self._requests.number is not None:
            number = self._requests.number
            self.close()
            raise SystemExit(128 + number)

    @contextlib.contextmanager
    def _connection_told(self) -> Iterator[None]:
        """Tell in one line that the cluster does not answer any more."""
        try:
            yield
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            self._stop_if_asked()
            raise GarnishError(
                f"--on: the cluster does not answer any more ({one_line(error, 200)}); what is done is kept, and the"
                " same command continues from there"
            ) from None


def last_line(error: Exception) -> str:
    """The line of an error of Ray that says what it was, without the stack of a remote process above it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[-1] if lines else type(error).__name__, 200)
