"""The verdict of a comparison, and its protocol, as sentences computed from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from garnish.comparing.report.results import ArmResult, Results, TaskFacts
from garnish.errors import plural
from garnish.reporting.number_format import count_text, signed_metric_text, signed_text


@final
@dataclass(frozen=True)
class Verdict:
    """The main conclusion in one line, with remarks that qualify it."""

    line: str
    remarks: tuple[str, ...]


def verdict(results: Results) -> Verdict:
    """The best adapter against full fine-tuning, the best for its size, tasks in which adapters lose, and caveats."""
    arms = results.arms
    reached = [(arm.delta, arm) for arm in arms if arm.role == "adapter" and arm.delta is not None]
    single = next((arm for arm in arms if arm.role == "single"), None)
    if not reached:
        finished = any(arm.role == "adapter" and arm.status == "done" for arm in arms)
        line = "Δm cannot be stated: full fine-tuning has no result." if finished else "No adapter has a result yet."
        return Verdict(line, tuple(_doubts(single) + _missing(arms)))
    remarks = _for_its_size(reached, arms) + _losses([arm for _, arm in reached], results.tasks)
    return Verdict(_line(reached, single), tuple(remarks + _doubts(single) + _missing(arms)))


def _line(reached: Sequence[tuple[float, ArmResult]], single: ArmResult | None) -> str:
    mean, best = max(reached, key=lambda pair: pair[0])
    trained, full = best.encoder_trainable, None if single is None else single.encoder_trainable
    sizes = ""
    if trained is not None:
        beside = f", full fine-tuning {count_text(full)}" if full else ""
        sizes = f" It trains {count_text(trained)} encoder parameters{beside}."
    if best.delta_interval is None:
        return f"{best.name} comes first with Δm {signed_text(mean)} % against full fine-tuning.{sizes}"
    low, high = best.delta_interval
    spread = f"Δm {signed_text(mean)} %, 95 % interval {signed_text(low)} to {signed_text(high)}"
    if high < 0:
        every = all((arm.delta_interval or (delta, delta))[1] < 0 for delta, arm in reached)
        who = "Every adapter loses" if every and len(reached) > 1 else "Even the best adapter loses"
        who = "The adapter loses" if len(reached) == 1 else who
        return f"{who} to full fine-tuning. {best.name} comes closest: {spread}.{sizes}"
    if low > 0:
        return f"{best.name} beats full fine-tuning of one model a task: {spread}.{sizes}"
    return f"{best.name} cannot be told apart from full fine-tuning: {spread}.{sizes}"


def _for_its_size(reached: Sequence[tuple[float, ArmResult]], arms: Sequence[ArmResult]) -> list[str]:
    """A sentence on the largest gain in Δm over the frozen trunk per trained encoder parameter."""
    frozen = next((arm.delta for arm in arms if arm.role == "frozen"), None)
    sized = [(delta, arm.encoder_trainable, arm) for delta, arm in reached if arm.encoder_trainable]
    if frozen is None or len(sized) < 2:
        return []
    most, size, arm = max(sized, key=lambda one: (one[0] - frozen) / one[1])
    if most <= frozen:
        return ["No adapter gains anything over the frozen trunk."]
    return [
        f"Most Δm per trained parameter: {arm.name}, {signed_text(most - frozen)} points over the frozen trunk with"
        f" {count_text(size)} encoder parameters."
    ]


def _losses(adapters: Sequence[ArmResult], tasks: Mapping[str, TaskFacts]) -> list[str]:
    """A sentence on tasks in which the interval of the difference to full fine-tuning is on the losing side."""
    found = []
    for task, about in tasks.items():
        sign = 1 if about.higher_is_better else -1
        differences = [arm.difference[task] for arm in adapters if task in arm.difference]
        known = [(one.mean, one.interval) for one in differences if one.interval is not None]
        losing = [interval for _, interval in known if max(sign * end for end in interval) < 0]
        if not losing:
            continue
        gap = sign * max(sign * mean for mean, _ in known)
        unit = " ".join(part for part in (about.headline, f"in {about.unit}" if about.unit else "") if part)
        every = len(losing) == len(known)
        who = f"all {len(known)} adapters lose" if every and len(known) > 1 else f"{len(losing)} of {len(known)} lose"
        found.append(f"{task}: {who}" + (f" (best {signed_metric_text(gap)} {unit})" if every else ""))
    return [f"Where adapters lose to full fine-tuning: {'; '.join(found)}."] if found else []


def _doubts(single: ArmResult | None) -> list[str]:
    """Sentences on doubts about the reference itself."""
    if single is None or single.status != "done":
        return ["Full fine-tuning of one model a task has no result, so Δm and gap recovered are missing."]
    found = ["its budget was short"] if single.flat is False else []
    found += ["its rate lies at the edge of the grid"] if single.rate_at_edge else []
    return [f"Read Δm with care: full fine-tuning may do better, for {' and '.join(found)}."] if found else []


def _missing(arms: Sequence[ArmResult]) -> list[str]:
    found = [f"{arm.name} ({arm.status})" for arm in arms if arm.status != "done"]
    return [f"Without a result: {', '.join(found)}."] if found else []


def protocol(results: Results) -> list[str]:
    """The common settings of all arms, in short phrases."""
    about = results.protocol
    beyond = f", up to {about.widen} more beyond an end" if about.widen else ""
    found = [
        f"{plural(about.steps, 'step')} of {plural(about.batch_size, 'picture')}",
        plural(len(about.seeds), "seed"),
        f"{plural(len(about.rates), 'learning rate')} an arm{beyond}",
        f"{plural(about.train_pictures, 'picture')} to train on",
        f"{about.held_out_pictures} held out to choose by ({about.held_out})",
        f"{about.test_pictures} to test on",
        f"evaluated at {about.eval_size[0]} × {about.eval_size[1]}" if about.eval_size is not None else None,
        f"precision {about.precision}",
        f"features of {about.variants} variants a picture cached" if about.variants else None,
    ]
    return [phrase for phrase in found if phrase is not None]
