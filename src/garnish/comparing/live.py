"""Progress of a comparison on standard error: a live table on a terminal, else a line for each finished job."""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from garnish.comparing.arms import Arm
from garnish.comparing.held_out_score import best_score, curve_of
from garnish.comparing.outcomes import Done, Failed, Measured
from garnish.comparing.schedule import Job, RunPlan
from garnish.errors import showable
from garnish.files.regular import read_regular
from garnish.output import console

#: Largest file of a run that is looked at, bytes.
_MOST_BYTES = 64 * 2**20


@final
class Display:
    """Prints on standard error; a context manager.

    Args:
        plan: the runs of the comparison.
        quiet: lines instead of the live table.
    """

    def __init__(self, plan: RunPlan, *, quiet: bool = False) -> None:
        self.plan = plan
        self.console = console(stderr=True)
        self.active: dict[Job, float] = {}
        self.finished_seconds: list[float] = []
        self.live: Live | None = None
        if self.console.is_terminal and not quiet:
            self.live = Live(
                console=self.console, get_renderable=self.table, refresh_per_second=1, redirect_stderr=False
            )

    def __enter__(self) -> Display:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, line: str) -> None:
        """Print one line."""
        self.console.print(showable(line))

    def started(self, job: Job) -> None:
        """Record that a job has started."""
        self.active[job] = time.monotonic()

    def finished(self, job: Job, outcome: Done) -> None:
        """Record that a job is done, and print its line."""
        seconds = time.monotonic() - self.active.pop(job)
        if job.kind == "train":
            self.finished_seconds.append(seconds)
        if self.live is None or isinstance(outcome, Failed):
            self.say(f"{self.line(job, outcome, seconds)}  [{self.progress()}]")

    def line(self, job: Job, outcome: Done, seconds: float) -> str:
        """One line on the outcome of a job."""
        place = f"{job.run.arm}, {'+'.join(job.run.tasks)}: rate {job.run.rate:g}, seed {job.run.seed}"
        if isinstance(outcome, Failed):
            return f"{place}: failed: {outcome.reason}"
        if isinstance(outcome, Measured):
            tasks = self.plan.conditions.tasks
            heads = [f"{t} {tasks[t].headline} {_number(m.get(tasks[t].headline))}" for t, m in outcome.metrics.items()]
            return f"{place}: test {', '.join(heads)} ({seconds:.0f} s)"
        score = best_score(curve_of(outcome, self.plan.conditions.training.best_by))
        return f"{place}: held-out {_number(score)} at step {outcome.best_step} ({seconds:.0f} s)"

    def progress(self) -> str:
        """Text such as ``7 of 20 runs, about 0:12:30 left``."""
        done = sum(self.runs_done(arm) for arm in self.plan.conditions.arms.values())
        left = self.plan.total - done
        said = f"{done} of {self.plan.total} runs"
        if not left or not self.finished_seconds:
            return said
        mean = sum(self.finished_seconds) / len(self.finished_seconds)
        seconds = int(mean * left / max(len(self.active), 1))
        return f"{said}, about {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"

    def runs_done(self, arm: Arm) -> int:
        """Number of an arm's runs that are done or failed; after a failed search the runs that it rules out count."""
        if self.plan.status(arm)[0] != "unfinished":
            return self.plan.runs_of(arm)
        runs = {run for group in arm.groups for run in (*self.plan.search(arm, group), *self.plan.chosen(arm, group))}
        return sum(self.plan.outcome(run) is not None for run in runs)

    def table(self) -> RenderableType:
        """A table of all arms with their progress and the jobs that are running."""
        made = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("arm", "runs", "in work", "step", "held-out", "chosen rate"):
            made.add_column(title, no_wrap=True)
        for arm in self.plan.conditions.arms.values():
            status, _ = self.plan.status(arm)
            jobs = [job for job in list(self.active) if job.run.arm == arm.name]
            steps, scores = zip(*map(self.peek, jobs), strict=True) if jobs else ((), ())
            rates = [self.plan.rate(arm, group) for group in arm.groups]
            made.add_row(
                arm.name,
                f"{self.runs_done(arm)}/{self.plan.runs_of(arm)}",
                "\n".join(_in_work(job, arm) for job in jobs) or {"unfinished": "", "done": "done"}.get(status, status),
                "\n".join(steps),
                "\n".join(scores),
                ", ".join("–" if rate is None else f"{rate:g}" for rate in rates),
                style=None if jobs else "dim" if status == "unfinished" else "red" if status == "failed" else "green",
            )
        return Group(made, Text(self.progress(), style="bold"))

    def peek(self, job: Job) -> tuple[str, str]:
        """Step and best held-out score of a run in training, read from its files."""
        if job.kind == "measure":
            return "", ""
        folder = self.plan.conditions.store.training(self.plan.conditions.key(job.run))
        steps = _column(folder / "log" / "scalars.csv", "step")
        by = self.plan.conditions.training.best_by
        scores = _column(folder / "results.csv", "score")
        if by is None:
            scores = [math.exp(min(score, 700.0)) for score in scores]
        return f"{steps[-1]:.0f}" if steps else "", f"{max(scores):.4g}" if scores else ""


def _in_work(job: Job, arm: Arm) -> str:
    of = f"{'+'.join(job.run.tasks)} " if arm.is_by_task else ""
    return f"{of}{'measuring' if job.kind == 'measure' else f'rate {job.run.rate:g}'}, seed {job.run.seed}"


def _column(file: Path, name: str) -> list[float]:
    """The finite numbers in a column of a CSV file that another process may be writing; empty if it cannot be read."""
    try:
        text = io.StringIO(read_regular(file, _MOST_BYTES).decode(), newline="")
        found = [float(row[name]) for row in csv.DictReader(text) if row.get(name)]
    except (OSError, ValueError, csv.Error):
        return []
    return [value for value in found if math.isfinite(value)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
