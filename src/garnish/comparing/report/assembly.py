"""Assembling the results of a comparison from the outcomes of its runs, and writing the files of the report."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import timm
import torch

from garnish import __version__
from garnish.backbones.weights import is_non_commercial
from garnish.comparing.analysis.effects import RESAMPLES, Effects
from garnish.comparing.analysis.statistics import dominated
from garnish.comparing.arms import Arm, ArmRun
from garnish.comparing.conditions import Conditions
from garnish.comparing.costs import Costs, together
from garnish.comparing.held_out_score import best_score, curve_of, is_at_edge, is_flat
from garnish.comparing.outcomes import Failed, Outcome, Trained
from garnish.comparing.report.page import write_page
from garnish.comparing.report.remarks import notes_of
from garnish.comparing.report.results import (
    ArmResult,
    BackboneLicence,
    Choice,
    Environment,
    Licences,
    MethodUsed,
    Protocol,
    Results,
    SearchRun,
    SeedRun,
    Sheet,
    Status,
    TaskFacts,
)
from garnish.comparing.report.spreadsheet import csv_text
from garnish.comparing.schedule import RunPlan
from garnish.comparing.store import write_json
from garnish.files.atomic import write_file
from garnish.heads.linear import LinearHead
from garnish.registry import describe, flat, options_of

RESULTS = "results.json"
_UNITS = {"Depth": "m", "Normals": "°"}


def results_of(
    effects: Effects, costs: Costs, sheets: Sequence[Sheet], *, command: str, wall_seconds: float
) -> Results:
    """Assemble the results of a comparison, finished or not.

    Args:
        effects: test metrics and effects of the arms.
        costs: measures the costs of arms.
        sheets: see :func:`garnish.comparing.report.prediction_sheets.draw_sheets`.
        command: the command line.
        wall_seconds: of training and evaluation, over all sessions.
    """
    plan, conditions = effects.plan, effects.conditions
    arms, said = [], []
    for arm in conditions.arms.values():
        row, lines = _arm(effects, arm, costs)
        arms.append(row)
        said += lines
    places = [None if a.delta is None or a.encoder_trainable is None else (a.delta, a.encoder_trainable) for a in arms]
    trunk = conditions.trunk_facts
    results = Results(
        title=conditions.options.title or _title(conditions),
        status="done" if all(arm.status != "unfinished" for arm in arms) else "unfinished",
        command=command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        wall_seconds=wall_seconds,
        environment=environment(),
        licences=Licences(
            backbone=BackboneLicence(
                name=trunk.name,
                licence=trunk.licence,
                non_commercial=is_non_commercial(trunk.licence),
                weights=trunk.weights,
            ),
            data=conditions.options.data_licence,
        ),
        protocol=_protocol(conditions),
        tasks={
            name: TaskFacts(
                task=type(task).__name__,
                headline=task.headline,
                higher_is_better=task.higher_is_better,
                unit=_UNITS.get(type(task).__name__, ""),
                classes=tuple(task.legend()) or None,
            )
            for name, task in conditions.tasks.items()
        },
        arms=tuple(replace(arm, dominated=out) for arm, out in zip(arms, dominated(places), strict=True)),
        sheets=tuple(sheets),
        notes=(),
    )
    return replace(results, notes=tuple(notes_of(plan, results, [*said, *costs.faults])))


def write_report(results: Results, folder: Path) -> Path:
    """Write results.json, results.csv and index.html; returns the page.

    Raises:
        BundleError, OSError: a file cannot be written; the previous one is unchanged.
    """
    write_json(folder / RESULTS, results)
    write_file(folder / "results.csv", csv_text(results).encode())
    return write_page(results, folder)


def environment() -> Environment:
    """Versions and hardware of this machine, without its name."""
    cuda = torch.cuda.is_available()
    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        timm=str(timm.__version__),
        garnish=__version__,
        platform=f"{platform.system()} {platform.machine()}",
        processor=f"{_processor()}, {os.cpu_count()} cores",
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if cuda else "cpu",
    )


def _arm(effects: Effects, arm: Arm, costs: Costs) -> tuple[ArmResult, list[str]]:
    plan, conditions = effects.plan, effects.conditions
    status, reason = plan.status(arm)
    by = conditions.training.best_by
    models = {group: _choice(plan, arm, group) for group in arm.groups}
    rates = {model.rate for model in models.values()}
    flats = [model.flat for model in models.values()]
    metrics, by_class = effects.metrics(arm)
    gap, said = effects.gap(arm)
    search, runs = [], []
    for group in arm.groups:
        task = group[0] if arm.is_by_task else None
        for run in plan.search(arm, group):
            outcome = plan.outcome(run)
            curve = curve_of(outcome, by)
            state, why = _state(outcome)
            search.append(
                SearchRun(task=task, rate=run.rate, score=best_score(curve), curve=curve, status=state, reason=why)
            )
        for run in plan.chosen(arm, group):
            outcome = plan.outcome(run)
            state, why = _state(outcome)
            best_step, seconds = (outcome.best_step, outcome.seconds) if isinstance(outcome, Trained) else (None, None)
            runs.append(
                SeedRun(
                    seed=run.seed,
                    task=task,
                    curve=curve_of(outcome, by),
                    best_step=best_step,
                    seconds=seconds,
                    status=state,
                    reason=why,
                )
            )
    done = [plan.outcome(run) for group in arm.groups for run in plan.chosen(arm, group)]
    first = [plan.outcome(run) for group in arm.groups for run in plan.chosen(arm, group)[:1]]
    times = [outcome.seconds for outcome in first if isinstance(outcome, Trained)]
    cost = together([costs.of(run) for run in model_runs(plan, arm)] if metrics else [])
    row = ArmResult(
        name=arm.name,
        role=arm.role,
        status=status,
        reason=reason,
        methods=tuple(MethodUsed(**describe(method)) for method in arm.methods),
        trunk=arm.trunk,
        rate=next(iter(rates)) if len(rates) == 1 else None,
        rate_at_edge=any(model.rate_at_edge for model in models.values()),
        flat=False if False in flats else None if None in flats else True,
        by_task={group[0]: model for group, model in models.items()} if arm.is_by_task else None,
        cached=any(outcome.cached for outcome in done if isinstance(outcome, Trained)),
        search=tuple(search),
        runs=tuple(runs),
        metrics=metrics,
        per_class=by_class,
        delta_m=effects.delta_m(arm),
        gap=gap,
        difference=effects.difference(arm),
        wall_seconds=sum(times) if times and len(times) == len(first) else None,
        dominated=False,
        **vars(cost),
    )
    return row, said


def model_runs(plan: RunPlan, arm: Arm) -> list[ArmRun]:
    """One run of each of an arm's models."""
    return [plan.search(arm, group)[0] for group in arm.groups]


def _choice(plan: RunPlan, arm: Arm, group: tuple[str, ...]) -> Choice:
    """The chosen rate of one model of an arm, with its flags."""
    rate, runs = plan.rate(arm, group), plan.chosen(arm, group)
    outcome = plan.outcome(runs[0]) if runs else None
    curve = curve_of(outcome, plan.conditions.training.best_by)
    tried = [run.rate for run in plan.search(arm, group)]
    flat = is_flat(curve, outcome.steps) if isinstance(outcome, Trained) else None
    return Choice(rate=rate, rate_at_edge=is_at_edge(rate, tried), flat=flat)


def _state(outcome: Outcome | None) -> tuple[Status, str | None]:
    if outcome is None:
        return "unfinished", None
    return outcome.status, outcome.reason if isinstance(outcome, Failed) else None


def _protocol(conditions: Conditions) -> Protocol:
    options, parts, head = conditions.training, conditions.parts, conditions.recipe.head
    assert isinstance(options.batch_size, int)
    heads = {t: flat(h) for t, h in head.items()} if isinstance(head, dict) else flat(head or LinearHead())
    return Protocol(
        steps=options.total_steps(len(parts.train()), options.batch_size, 1),
        batch_size=options.batch_size * options.accumulate,
        seeds=tuple(conditions.seeds),
        rates=conditions.options.rates,
        reference_rates=conditions.options.reference_rates,
        widen=conditions.options.widen,
        head_rate=options.lr if options.head_lr is None else options.head_lr,
        weight_decay=options.weight_decay,
        schedule=options.schedule,
        precision=options.precision,
        held_out=parts.held_out_by,
        train_pictures=len(parts.train()),
        held_out_pictures=len(parts.held_out()),
        test_pictures=len(parts.test()),
        eval_size=options.eval_size,
        head=heads,
        augment=None if options.augment is None else options_of(options.augment),
        variants=options.variants,
        resamples=RESAMPLES,
    )


def _title(conditions: Conditions) -> str:
    source = conditions.recipe.source
    name = Path(source).stem if source != "command line" else conditions.trunk_facts.name
    return f"{name}: {len(conditions.arms)} arms, {len(conditions.seeds)} seeds"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
