"""What a comparison shows, in sentences computed from its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from garnish.comparing.report.number_format import count, find, signed, signed_metric
from garnish.errors import plural


@dataclass(frozen=True)
class Verdict:
    """One line, and what has to be said with it."""

    line: str
    remarks: tuple[str, ...]


def verdict(results: Mapping[str, Any]) -> Verdict:
    """The best adapter against full fine-tuning, the most for its size, where adapters lose, and what weakens this."""
    arms = results["arms"]
    adapters = [a for a in arms if a["role"] == "adapter" and find(a, "delta_m", "mean") is not None]
    single = next((a for a in arms if a["role"] == "single"), None)
    if not adapters:
        finished = any(a["role"] == "adapter" and a["status"] == "done" for a in arms)
        line = "Δm cannot be stated: full fine-tuning has no result." if finished else "No adapter has a result yet."
        return Verdict(line, tuple(_doubts(single) + _missing(arms)))
    remarks = _for_its_size(adapters, arms) + _losses(adapters, results["tasks"]) + _doubts(single) + _missing(arms)
    return Verdict(_line(adapters, single), tuple(remarks))


def _line(adapters: Sequence[Mapping[str, Any]], single: Mapping[str, Any] | None) -> str:
    best = max(adapters, key=lambda a: a["delta_m"]["mean"])
    mean, interval = best["delta_m"]["mean"], find(best, "delta_m", "interval") or [None, None]
    low, high = interval
    trained, full = find(best, "encoder_trainable"), find(single, "encoder_trainable")
    sizes = ""
    if trained is not None:
        beside = f", full fine-tuning {count(full)}" if full else ""
        sizes = f" It trains {count(trained)} encoder parameters{beside}."
    if low is None or high is None:
        return f"{best['name']} comes first with Δm {signed(mean)} % against full fine-tuning.{sizes}"
    spread = f"Δm {signed(mean)} %, 95 % interval {signed(low)} to {signed(high)}"
    if high < 0:
        every = all((find(a, "delta_m", "interval", 1) or a["delta_m"]["mean"]) < 0 for a in adapters)
        who = "Every adapter loses" if every and len(adapters) > 1 else "Even the best adapter loses"
        who = "The adapter loses" if len(adapters) == 1 else who
        return f"{who} to full fine-tuning. {best['name']} comes closest: {spread}.{sizes}"
    if low > 0:
        return f"{best['name']} beats full fine-tuning of one model a task: {spread}.{sizes}"
    return f"{best['name']} cannot be told apart from full fine-tuning: {spread}.{sizes}"


def _for_its_size(adapters: Sequence[Mapping[str, Any]], arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Δm gained over the frozen trunk for each trained encoder parameter."""
    frozen = next((find(a, "delta_m", "mean") for a in arms if a["role"] == "frozen"), None)
    gains = [
        ((a["delta_m"]["mean"] - frozen) / a["encoder_trainable"], a)
        for a in adapters
        if frozen is not None and a.get("encoder_trainable")
    ]
    if len(gains) < 2:
        return []
    most, arm = max(gains, key=lambda pair: pair[0])
    if most <= 0:
        return ["No adapter gains anything over the frozen trunk."]
    gain = arm["delta_m"]["mean"] - frozen
    return [
        f"Most Δm per trained parameter: {arm['name']}, {signed(gain)} points over the frozen trunk with"
        f" {count(arm['encoder_trainable'])} encoder parameters."
    ]


def _losses(adapters: Sequence[Mapping[str, Any]], tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Tasks in which the interval of the difference to full fine-tuning lies on its losing side."""
    found = []
    for task, about in tasks.items():
        sign = 1 if about["higher_is_better"] else -1
        known = [a for a in adapters if None not in (find(a, "difference", task, "interval") or [None])]
        losing = [a for a in known if max(sign * v for v in a["difference"][task]["interval"]) < 0]
        if not losing:
            continue
        best = max(known, key=lambda a: sign * a["difference"][task]["mean"])
        gap = find(best, "difference", task, "mean")
        unit = " ".join(part for part in (about["headline"], f"in {about['unit']}" if about["unit"] else "") if part)
        every = len(losing) == len(known)
        who = f"all {len(known)} adapters lose" if every and len(known) > 1 else f"{len(losing)} of {len(known)} lose"
        found.append(f"{task}: {who}" + (f" (best {signed_metric(gap)} {unit})" if every else ""))
    return [f"Where adapters lose to full fine-tuning: {'; '.join(found)}."] if found else []


def _doubts(single: Mapping[str, Any] | None) -> list[str]:
    """What makes the reference itself doubtful."""
    if single is None or single["status"] != "done":
        return ["Full fine-tuning of one model a task has no result, so Δm and gap recovered are missing."]
    found = ["its budget was short"] if single.get("flat") is False else []
    found += ["its rate lies at the edge of the grid"] if single.get("rate_at_edge") else []
    return [f"Read Δm with care: full fine-tuning may do better, for {' and '.join(found)}."] if found else []


def _missing(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [f"{arm['name']} ({arm['status']})" for arm in arms if arm["status"] != "done"]
    return [f"Without a result: {', '.join(found)}."] if found else []


def protocol(results: Mapping[str, Any]) -> list[str]:
    """What every arm had in common, in short phrases."""
    about = results["protocol"]
    seeds, rates = about.get("seeds") or [], about.get("rates") or []
    beyond = f", up to {about['widen']} more beyond an end" if about.get("widen") else ""
    found = [
        f"{plural(about['steps'], 'step')} of {plural(about['batch_size'], 'picture')}" if about.get("steps") else None,
        plural(len(seeds), "seed") if seeds else None,
        f"{plural(len(rates), 'learning rate')} an arm{beyond}" if rates else None,
        f"{plural(about['train_pictures'], 'picture')} to train on"
        if about.get("train_pictures") is not None
        else None,
        f"{about['held_out_pictures']} held out to choose by ({about.get('held_out')})"
        if about.get("held_out_pictures") is not None
        else None,
        f"{about['test_pictures']} to test on" if about.get("test_pictures") is not None else None,
        f"evaluated at {about['eval_size'][0]} × {about['eval_size'][1]}" if about.get("eval_size") else None,
        f"precision {about['precision']}" if about.get("precision") else None,
        f"features of {about['variants']} variants a picture cached" if about.get("variants") else None,
    ]
    return [phrase for phrase in found if phrase]
