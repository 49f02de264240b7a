"""The whole plan: list candidates, count them, predict and time steps, apply the budget, recommend one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch

from garnish.adapters.reference import Frozen
from garnish.engine.memory import Level
from garnish.errors import GarnishError, OptionError, one_line, plural
from garnish.planning.budget import Budget
from garnish.planning.candidates import Candidate, Refused, candidates
from garnish.planning.counting import Counted, Setting, count
from garnish.planning.memory import baseline_bytes
from garnish.planning.recommend import Recommendation, recommend
from garnish.planning.step_cost_prediction import PredictedStep, predict_step
from garnish.planning.stopwatch import Stopwatch


@final
@dataclass(frozen=True)
class SurveyRow:
    """One candidate that fits the budget.

    Attributes:
        counted: its exact counts.
        predicted: the cost of a step; None if not requested, or not predictable.
    """

    counted: Counted
    predicted: PredictedStep | None


@final
@dataclass(frozen=True)
class Survey:
    """The result of planning.

    Attributes:
        rows: the candidates that fit, fewest trained parameters in the encoder first.
        recommendation: which one to take.
        refused: methods that do not fit the trunk.
        left_out: candidate → the limit that it exceeds, or why a limit cannot be checked.
        heads_only: step of the frozen trunk with heads.
        baseline_bytes: memory of this process after a tiny step, before planning: Python and its libraries;
            added to predicted memory before it is compared with the limit.
    """

    rows: list[SurveyRow]
    recommendation: Recommendation
    refused: list[Refused]
    left_out: dict[str, str]
    heads_only: PredictedStep
    baseline_bytes: int

    @property
    def unpredicted(self) -> int:
        """Number of rows without a prediction."""
        return sum(row.predicted is None for row in self.rows)

    @property
    def untimed(self) -> int:
        """Number of rows with a prediction whose step was not timed."""
        return sum(row.predicted is not None and row.predicted.step_seconds is None for row in self.rows)


@torch.random.fork_rng(devices=[])
def survey(
    setting: Setting,
    budget: Budget,
    methods: Sequence[str] | None = None,
    *,
    most: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Survey:
    """Find the candidates that fit a budget.

    Args:
        setting: backbone, tasks, heads, batch.
        budget: the limits.
        methods: names of the methods to try; None: all.
        most: largest number of steps to predict, and to time; None: all. Limits on a step are checked for all.
        say: called with lines of progress.

    Raises:
        OptionError: an unknown method, heads that do not fit, pictures too small for the backbone.
    """
    python_bytes = baseline_bytes()
    found, refused = candidates(setting.trunk.without_memory(), len(setting.tasks), methods)
    say(f"counting {len(found)} candidates")
    left_out: dict[str, str] = {}
    fitting: list[Counted] = []
    for candidate in found:
        counted = count(setting, candidate)
        if isinstance(counted, Refused):
            refused.append(counted)
        elif broken := _broken(counted, budget):
            left_out[str(candidate)] = broken
        else:
            fitting.append(counted)
    say("measuring a step of heads only")
    stopwatch = Stopwatch(setting)
    alone = _predicted(setting, Candidate(Frozen()))
    if isinstance(alone, str):
        height, width = setting.size
        pictures = f"{plural(setting.batch_size, 'picture')} of {height}x{width}"
        raise OptionError(
            f"plan: a step of heads only on {pictures} is not possible:"
            f" {alone}; set another --size or --batch-size, or other heads"
        )
    heads_only = _timed(alone, Candidate(Frozen()), stopwatch, say)
    steps: dict[Candidate, PredictedStep] = {}
    memory_excludes = False
    too_much: dict[Candidate, str] = {}
    chosen = fitting if budget.needs_a_step else _first(fitting, most, len(setting.tasks))
    for number, counted in enumerate(chosen, start=1):
        candidate = counted.candidate
        smaller = next((why for other, why in too_much.items() if candidate.exceeds(other)), None)
        if smaller is not None:
            left_out[str(candidate)] = f"larger than one that {smaller}"
            continue
        say(f"step {number} of {len(chosen)}: {candidate}")
        step = _predicted(setting, candidate)
        if not isinstance(step, str) and _exceeds(step, budget, python_bytes) and counted.encoder_trainable:
            step = _predicted(setting, candidate, "least", step.macs)
        if budget.step_ratio is not None and not isinstance(step, str) and not _step_broken(step, budget, python_bytes):
            step = stopwatch.timed(step, candidate.method)
        if isinstance(step, str):  # reported, never guessed
            if budget.needs_a_step:
                left_out[str(candidate)] = step
            else:
                say(f"{candidate}: {step}")
            continue
        steps[candidate] = step
        if broken := _step_broken(step, budget, python_bytes):
            left_out[str(candidate)] = too_much[candidate] = broken
            memory_excludes |= broken.startswith("needs")
    fitting = [counted for counted in fitting if str(counted.candidate) not in left_out]
    if budget.step_ratio is None:
        chosen = [c for c in _first(fitting, most, len(setting.tasks)) if c.candidate in steps]
        for number, candidate in enumerate((counted.candidate for counted in chosen), start=1):
            say(f"timing {number} of {len(chosen)}: {candidate}")
            steps[candidate] = _timed(steps[candidate], candidate, stopwatch, say)
    rows = [
        SurveyRow(c, steps.get(c.candidate))
        for c in sorted(fitting, key=lambda c: (c.encoder_trainable, str(c.candidate)))
    ]
    return Survey(
        rows,
        recommend([row.counted for row in rows], len(setting.tasks), memory_excludes=memory_excludes),
        refused,
        left_out,
        heads_only,
        python_bytes,
    )


def _predicted(
    setting: Setting, candidate: Candidate, memory: Level = "lean", macs: int | None = None
) -> PredictedStep | str:
    try:
        return predict_step(setting, candidate.method, memory, macs)
    except GarnishError:
        raise
    except Exception as error:  # an operation that fake tensors do not support
        return f"its step cannot be predicted ({one_line(error, 120)})"


def _timed(
    step: PredictedStep, candidate: Candidate, stopwatch: Stopwatch, say: Callable[[str], None]
) -> PredictedStep:
    """A step with its time; unchanged, with the reason reported, if it cannot be timed here."""
    timed = stopwatch.timed(step, candidate.method)
    if isinstance(timed, str):
        say(f"{candidate}: {timed}")
        return step
    return timed


def _broken(counted: Counted, budget: Budget) -> str:
    """The limit that a candidate exceeds, of those that need no step; empty if none."""
    if budget.share is not None and counted.share > budget.share:
        return f"trains {100 * counted.share:.3g}% of the backbone's parameters"
    if budget.bundle_bytes is not None and counted.bundle_bytes > budget.bundle_bytes:
        return f"its bundle has {counted.bundle_bytes:,} bytes"
    return ""


def _exceeds(step: PredictedStep, budget: Budget, python_bytes: int) -> bool:
    """Whether a step takes more memory than is allowed."""
    return budget.memory_bytes is not None and step.memory_bytes + python_bytes > budget.memory_bytes


def _step_broken(step: PredictedStep, budget: Budget, python_bytes: int) -> str:
    """The limit that a step exceeds, as far as known; empty if none."""
    if _exceeds(step, budget, python_bytes):
        return f"needs {(step.memory_bytes + python_bytes) / 1e9:.3g} GB"
    if budget.step_ratio is not None and step.step_ratio is not None and step.step_ratio > budget.step_ratio:
        return f"takes {step.step_ratio:.2f} times the step of heads only"
    return ""


def _first(fitting: Sequence[Counted], most: int | None, num_tasks: int) -> list[Counted]:
    """The ``most`` candidates to predict: the likely recommendation, the largest of each family, then the others."""
    ends = list({c.candidate.family: c for c in fitting}.values())
    ends.sort(key=lambda c: c.candidate.sharing == "per task")
    first = [recommend(fitting, num_tasks).choice, *ends, *fitting]
    return list({c.candidate: c for c in first if c is not None}.values())[:most]
