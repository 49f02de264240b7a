"""``compare``: run a whole comparison from recipe to report; ``preview``: list its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from garnish.comparing.analysis.effects import Effects
from garnish.comparing.arms import Arm
from garnish.comparing.compare_options import CompareOptions
from garnish.comparing.conditions import Conditions
from garnish.comparing.costs import Costs
from garnish.comparing.job_queue import Alone, Crew, Say, sweep
from garnish.comparing.keys import key_of
from garnish.comparing.live import Display
from garnish.comparing.outcomes import Trained
from garnish.comparing.report.assembly import model_runs, results_of, write_report
from garnish.comparing.report.prediction_sheets import draw_sheets
from garnish.comparing.report.results import Results, Sheet
from garnish.comparing.schedule import RunPlan
from garnish.comparing.workers import Workers
from garnish.errors import plural

#: Makes a crew of other machines, from the conditions and what prints a line.
Recruits = Callable[[Conditions, Say], AbstractContextManager[Crew]]


def compare(
    conditions: Conditions,
    *,
    command: str = "",
    retry: bool = False,
    quiet: bool = False,
    recruits: Recruits | None = None,
) -> Results:
    """Train and measure everything that is not done yet, and write the report.

    All results are stored in the report's folder, so the same call continues where an earlier one was stopped, and one
    with more arms, seeds or rates runs only those.

    Args:
        conditions: recipe and options.
        command: the command line to show in the report.
        retry: run failed runs again.
        quiet: no live table.
        recruits: makes the crew that runs the jobs; None: this process, or ``jobs`` of this machine.

    Returns:
        The results, which are the content of results.json.

    Raises:
        OptionError, DataError: before the first run if possible.
        BundleError, OSError: a full disk; what was written before is kept.
        SystemExit: asked to stop by SIGTERM (code 143) or Ctrl-C (130), after a checkpoint.
    """
    plan = RunPlan(conditions, retry=retry)
    effects = Effects(plan)

    def report(costs: Costs, sheets: Sequence[Sheet]) -> Results:
        seconds = sum((one.seconds for one in list(plan.outcomes.values()) if isinstance(one, Trained)), 0.0)
        found = results_of(effects, costs, sheets, command=command, wall_seconds=seconds)
        write_report(found, conditions.out)
        return found

    def arm_done(arm: Arm) -> None:
        if any(plan.status(each)[0] == "unfinished" for each in conditions.arms.values()):
            with conditions.store.lock(place):
                report(Costs(conditions, None, timed=False), ())

    # another process may write the same report
    place = key_of({"report": str(conditions.out.resolve())})
    with Display(plan, quiet=quiet) as display:
        try:
            with ExitStack() as stack:
                crew: Crew = Alone(conditions, display.say)
                if recruits is not None:
                    crew = stack.enter_context(recruits(conditions, display.say))
                elif conditions.options.jobs > 1:
                    crew = stack.enter_context(Workers(conditions, conditions.options.jobs))
                sweep(plan, crew, display, arm_done)
        except SystemExit:
            display.say("stopped; what is done is kept, and the same command continues from there")
            raise
        display.say("measuring costs, drawing the report")
        with conditions.store.lock(place, display.say, str(conditions.out)):
            frozen = effects.reference("frozen")
            costs = Costs(conditions, None if frozen is None else model_runs(plan, frozen)[0], timed=True)
            sheets = draw_sheets(effects, conditions.out) if conditions.options.pictures else ()
            return report(costs, sheets)


def preview(conditions: Conditions, say: Callable[[str], None], *, every: bool) -> None:
    """Print how many runs there are, and with ``every`` a line for each run with its status."""
    plan = RunPlan(conditions)
    known = 0
    for arm in conditions.arms.values():
        for group in arm.groups:
            runs = plan.search(arm, group)
            chosen = plan.chosen(arm, group)
            runs += [run for run in chosen if run not in runs]
            done = [run for run in runs if plan.outcome(run) is not None]
            known += len(done)
            for run in runs if every else ():
                outcome = plan.outcome(run)
                say(f"{'to do' if outcome is None else outcome.status:<6}  {run}")
            if every and not chosen:
                say(
                    f"to do   {arm.name}, {'+'.join(group)}, the chosen rate, {len(conditions.seeds) - 1} further seeds"
                )
    parts, widen, default = conditions.parts, conditions.options.widen, CompareOptions()
    if conditions.options.held_out_every != default.held_out_every and parts.held_out_by == "the split val":
        say("held_out_every is not used: the data have a split val")
    own = conditions.options.reference_rates
    if own != default.reference_rates and all(arm.rates != own for arm in conditions.arms.values()):
        say("reference_rates are not used: no arm tunes a whole trunk")
    more = f", up to {widen} more if the best rate of a search is at an edge" if widen else ""
    say(
        f"{plural(len(conditions.arms), 'arm')}, {plural(plan.total, 'run')}{more}, {known} there;"
        f" {plural(len(parts.train()), 'picture')} to train"
        f" on, {len(parts.held_out())} held out ({parts.held_out_by}), {len(parts.test())} to test on"
    )
