"""The whole plan: candidates, counts, the bounds that need no step, predictions, the bounds that need one, a choice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from garnish.adapters.reference import Frozen
from garnish.errors import GarnishError, one_line
from garnish.planning.budget import Budget
from garnish.planning.candidates import Candidate, Refused, candidates
from garnish.planning.counting import Counted, Setting, count
from garnish.planning.op_times import OpTimes
from garnish.planning.recommend import Recommendation, recommend
from garnish.planning.step_cost_prediction import Prediction, calibrated, predict


@final
@dataclass(frozen=True)
class Row:
    """One candidate that fits.

    Attributes:
        counted: what is exact.
        predicted: what a step takes; None where it was not asked for, or could not be predicted.
    """

    counted: Counted
    predicted: Prediction | None


@final
@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        rows: what fits, fewest trained parameters in the encoder first.
        recommendation: which to take.
        refused: what does not fit the trunk.
        left_out: candidate → the bound that it breaks.
        unpredicted: rows without a prediction, for there were too many.
        heads_only: step of the frozen trunk with heads.
        baseline_bytes: what this process took after a tiny step, before anything was planned: Python and its libraries;
            added to predicted memory before it is held against a bound.
    """

    rows: list[Row]
    recommendation: Recommendation
    refused: list[Refused]
    left_out: dict[str, str]
    unpredicted: int
    heads_only: Prediction
    baseline_bytes: int


def survey(
    setting: Setting,
    budget: Budget,
    methods: Sequence[str] | None = None,
    *,
    most: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Survey:
    """Find what fits a budget.

    Args:
        setting: backbone, tasks, heads, batch.
        budget: the bounds.
        methods: names of those to try; all when left out.
        most: predictions to make at most; None: as many as there are candidates. Bounds on a step are held against all.
        say: told what goes on.

    Raises:
        OptionError: an unknown method, heads that do not fit.
    """
    times = calibrated()
    baseline_bytes = resident_bytes()
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
    heads_only = _predicted(setting, Candidate(Frozen()), times)
    predicted: dict[Candidate, Prediction] = {}
    chosen = fitting if budget.needs_a_step or most is None else _first(fitting, most, len(setting.tasks))
    memory_excludes = False
    full: dict[tuple[str, str, str], str] = {}
    for number, counted in enumerate(chosen, start=1):
        candidate = counted.candidate
        if budget.needs_a_step and candidate.family in full:
            left_out[str(candidate)] = f"larger than one that {full[candidate.family]}"
            continue
        say(f"step {number} of {len(chosen)}: {candidate}")
        try:
            found_step = _predicted(setting, candidate, times)
        except GarnishError:
            raise
        except Exception as error:  # an operation that fake tensors lack: said, never guessed
            reason = f"its step cannot be predicted ({one_line(error, 120)})"
            if budget.needs_a_step:
                left_out[str(candidate)] = reason
            else:
                say(f"{candidate}: {reason}")
            continue
        predicted[candidate] = found_step
        step_broken = list(_step_broken(found_step, heads_only, budget, baseline_bytes))
        if step_broken:
            left_out[str(candidate)] = full[candidate.family] = " and ".join(step_broken)
            memory_excludes |= step_broken[0].startswith("needs")
    rows = [
        Row(c, predicted.get(c.candidate))
        for c in sorted(fitting, key=lambda c: (c.encoder_trainable, str(c.candidate)))
        if str(c.candidate) not in left_out
    ]
    return Survey(
        rows,
        recommend([row.counted for row in rows], len(setting.tasks), memory_excludes=memory_excludes),
        refused,
        left_out,
        sum(row.predicted is None for row in rows),
        heads_only,
        baseline_bytes,
    )


def _predicted(setting: Setting, candidate: Candidate, times: OpTimes) -> Prediction:
    with torch.random.fork_rng(devices=[]):
        return predict(setting, candidate.method, times)


def _broken(counted: Counted, budget: Budget) -> str:
    """The bound that a candidate breaks, of those that need no step; empty where none."""
    if budget.share is not None and counted.share > budget.share:
        return f"trains {100 * counted.share:.3g}% of the backbone's parameters"
    if budget.bundle_bytes is not None and counted.bundle_bytes > budget.bundle_bytes:
        return f"its bundle has {counted.bundle_bytes:,} bytes"
    return ""


def _step_broken(step: Prediction, heads_only: Prediction, budget: Budget, baseline_bytes: int) -> Iterator[str]:
    memory = step.memory_bytes + baseline_bytes
    if budget.memory_bytes is not None and memory > budget.memory_bytes:
        yield f"needs {memory / 1e9:.3g} GB"
    ratio = step.step_seconds / heads_only.step_seconds
    if budget.step_ratio is not None and ratio > budget.step_ratio:
        yield f"takes {ratio:.2f} times the step of heads only"


def _first(fitting: Sequence[Counted], most: int, num_tasks: int) -> list[Counted]:
    """What to predict where not all can be: what will be recommended, the largest of each family, then the others."""
    ends = list({c.candidate.family: c for c in fitting}.values())
    ends.sort(key=lambda c: c.candidate.sharing == "per task")
    first = [recommend(fitting, num_tasks).choice, *ends, *fitting]
    return list({c.candidate: c for c in first if c is not None}.values())[:most]


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0
