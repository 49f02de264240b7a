"""The notes of a report: caveats about search, measurements and arms, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from garnish.comparing.outcomes import Trained
from garnish.comparing.report.results import ArmResult, Choice, Results
from garnish.comparing.schedule import RunPlan

#: Largest number of training warnings in the notes.
_WARNINGS = 5


def notes_of(plan: RunPlan, results: Results, said: Sequence[str]) -> list[str]:
    """The notes of results.json.

    Args:
        plan: the runs and their outcomes.
        results: everything but the notes.
        said: notes from computing effects and costs.
    """
    conditions = plan.conditions
    arms = results.arms
    notes = []
    if results.status == "unfinished":
        done = sum(arm.status != "unfinished" for arm in arms)
        notes.append(f"Unfinished: {done} of {len(arms)} arms are done; give the same command again to go on.")
    notes += _about_search(plan, arms)
    notes += _about_measures(plan, results)
    notes += _about_arms(plan, arms)
    licence = results.licences.backbone
    if licence.non_commercial:
        notes.append(f"The trunk's weights are not for commercial use ({licence.licence}), and so is what was trained.")
    if "depth" in licence.weights.lower() and any(task.task == "Depth" for task in results.tasks.values()):
        notes.append("The trunk's weights come from training for depth, so that task starts from more than the others.")
    if not conditions.options.pictures:
        notes.append("Pictures of the test set were left out of the report (--no-pictures).")
    notes += dict.fromkeys(said)
    store = str(conditions.store.folder.resolve())  # this path means nothing to other readers
    warnings = dict.fromkeys(
        line.replace(str(conditions.store.folder), "the store").replace(store, "the store")
        for _, outcome in sorted(plan.outcomes.items(), key=lambda item: str(item[0]))  # in whatever order they ended
        if isinstance(outcome, Trained)
        for line in outcome.warnings
        if "non-commercial" not in line
    )
    return [*notes, *(f"Training warned: {line}." for line in list(warnings)[:_WARNINGS])]


def _about_search(plan: RunPlan, arms: Sequence[ArmResult]) -> list[str]:
    best_by = plan.conditions.training.best_by
    score = (
        f"{best_by}, with a minus where lower is better"
        if best_by is not None
        else "the geometric mean over tasks of the headline metric, or of 1 over it where lower is better"
    )
    notes = [f"Scores on the held-out part are {score}."]
    if short := _where(arms, lambda one: one.flat is False):
        notes.append(
            f"The budget is short for {short}: the held-out score still rose by 1 % or more over the last quarter of"
            " the steps, so more steps would give more."
        )
    if unknown := _where([arm for arm in arms if arm.status == "done"], lambda one: one.flat is None):
        notes.append(f"Whether the budget sufficed cannot be told for {unknown}: there are too few evaluations.")
    if edge := _where(arms, lambda one: one.rate_at_edge):
        notes.append(f"The chosen rate is at the edge of those tried for {edge}; a better one may lie beyond.")
    if any(arm.role == "frozen" for arm in arms):
        notes.append("Searched is the rate of what an arm adapts; heads have one rate in all arms but heads only.")
    lost = [(arm.name, one) for arm in arms for one in arm.search if one.status == "failed"]
    for name, one in lost:
        of = f", {one.task}" if one.task else ""
        notes.append(f"{name}{of}: rate {one.rate:g} failed: {one.reason}.")
    return notes


def _about_measures(plan: RunPlan, results: Results) -> list[str]:
    size = results.protocol.eval_size
    at = "their own size" if size is None else f"{size[0]} × {size[1]} pixels"
    notes = [
        f"Measured are bundles as they are stored, at float16, on the test pictures at {at}.",
        "Intervals say how far a figure depends on which pictures were tested, not on the seed; of frames of a video,"
        " which resemble each other, they are too narrow.",
    ]
    limit = plan.conditions.training.eval_limit
    if limit is not None and limit < results.protocol.held_out_pictures:
        notes.append(f"Scores on the held-out part are of {limit} of its pictures, evenly spaced.")
    return notes


def _about_arms(plan: RunPlan, arms: Sequence[ArmResult]) -> list[str]:
    notes = [f"{arm.name} failed: {arm.reason}." for arm in arms if arm.status == "failed"]
    if any(arm.role == "single" and len(plan.conditions.arms[arm.name].groups) > 1 for arm in arms):
        notes.append(
            "Of full fine-tuning with a model a task, parameters, bytes, multiply-accumulates and times are those of"
            " all its models together; bytes for backward are those of one."
        )
    cached = [arm.name for arm in arms if arm.cached]
    variants = plan.conditions.training.variants
    if variants is not None:
        notes.append(
            f"All arms see the same {variants} augmented variants of each training picture; "
            + (f"{', '.join(cached)} read the trunk's features of them from a cache." if cached else "none is cached.")
        )
    if any(arm.trunk == "random" for arm in arms):
        notes.append("Random trunks have other weights for each seed.")
    if any(arm.step_ratio is not None for arm in arms):
        notes.append("Step times were measured side by side with steps of heads only, nothing cached, after training.")
    return notes


def _where(arms: Sequence[ArmResult], holds: Callable[[ArmResult | Choice], bool]) -> str:
    """Names of the arms that satisfy ``holds``, with the tasks whose own models satisfy it."""
    found = []
    for arm in arms:
        tasks = [task for task, model in arm.by_model.items() if holds(model)]
        if holds(arm):
            found.append(f"{arm.name} ({', '.join(tasks)})" if tasks else arm.name)
    return "; ".join(found)
