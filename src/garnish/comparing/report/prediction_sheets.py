"""Contact sheets of test pictures with label and every arm's prediction: some evenly spaced ones, and the worst."""

from __future__ import annotations

import math
import re
from pathlib import Path

from garnish.comparing.analysis.effects import Effects
from garnish.comparing.analysis.statistics import per_picture
from garnish.comparing.arms import Arm, ArmRun
from garnish.comparing.report.results import Sheet
from garnish.comparing.store import write_bytes
from garnish.comparing.test_scores import painted, painted_labels
from garnish.data.subset import chosen

#: Folder of the cells, in the report's folder.
FOLDER = "pictures"
#: Number of evenly spaced pictures, and of worst pictures of each task.
SAMPLES, WORST = 3, 2


def draw_sheets(effects: Effects, out: Path) -> list[Sheet]:
    """Paint the cells into ``out/pictures`` and return the sheets; PNG files of earlier sheets are removed there.

    Raises:
        DataError: a picture that cannot be read. BundleError: nothing can be written.
    """
    conditions = effects.conditions
    runs = {task: runs_of(effects, task) for task in conditions.tasks}
    scores = {
        task: {name: scores_of(effects, task, run) for name, run in found.items()} for task, found in runs.items()
    }
    wanted = _wanted(effects, scores)
    labels = painted_labels(conditions, _indices(wanted))
    maps: dict[tuple[str, str, int], Path] = {}
    for arm in conditions.arms.values():
        for group in arm.groups:
            run = next((runs[task][arm.name] for task in group if arm.name in runs[task]), None)
            if run is not None:
                drawn = painted(conditions, run, {t: i for t, i in _indices(wanted).items() if t in group})
                maps |= {(arm.name, task, index): file for (task, index), file in drawn.items()}
    folder, sheets = out / FOLDER, []
    kept: set[str] = set()

    def put(file: Path, name: str) -> str:
        target = folder / f"{name}.png"
        kept.add(target.name)
        data = file.read_bytes()
        if not target.is_file() or target.stat().st_size != len(data) or target.read_bytes() != data:
            write_bytes(target, data)
        return f"{FOLDER}/{target.name}"

    for kind, task, index in wanted:
        if (task, index) not in labels:  # this picture has no label of the task
            continue
        cells = {"picture": put(labels["", index], f"{index}"), "target": put(labels[task, index], f"{index}-{task}")}
        for name in runs[task]:
            cells[name] = put(maps[name, task, index], f"{index}-{task}-{_slug(name)}")
        values = {name: found[index] for name, found in scores[task].items() if math.isfinite(found[index])}
        sheets.append(Sheet(kind=kind, task=task, picture=name_of(effects, index), values=values, cells=cells))
    for file in folder.glob("*.png") if folder.is_dir() else ():
        if file.name not in kept:
            file.unlink()
    return sheets


def runs_of(effects: Effects, task: str) -> dict[str, ArmRun]:
    """Arm → its measured run of the first seed that includes the task."""
    found: dict[str, ArmRun] = {}
    for arm in effects.conditions.arms.values():
        if runs := effects.runs(arm, task):
            found[arm.name] = runs[0]
    return found


def scores_of(effects: Effects, task: str, run: ArmRun) -> list[float]:
    """The headline metric of each test picture; NaN if it has none."""
    totals = effects.totals(run).get(task)
    return per_picture(effects.tasks[task], totals) if totals is not None else [math.nan] * effects.counts.shape[1]


def name_of(effects: Effects, index: int) -> str:
    """The file name of a test picture, without folders."""
    arms: list[Arm] = list(effects.conditions.arms.values())
    for run in (run for arm in arms for task in effects.tasks for run in effects.runs(arm, task)):
        for totals in effects.totals(run).values():
            if totals is not None:
                return Path(totals.pictures[index]).name
    return str(index)


def _wanted(effects: Effects, scores: dict[str, dict[str, list[float]]]) -> list[tuple[str, str, int]]:
    """(kind, task, index) of each sheet."""
    count = effects.counts.shape[1]
    rows = [("sample", task, index) for index in chosen(count, SAMPLES) for task in scores]
    for task, by_arm in scores.items():
        sign = 1 if effects.tasks[task].higher_is_better else -1
        means = []
        for index in range(count):
            known = [values[index] for values in by_arm.values() if math.isfinite(values[index])]
            if known:
                means.append((sign * math.fsum(known) / len(known), index))
        rows += [("worst", task, index) for _, index in sorted(means)[:WORST]]
    return rows


def _indices(wanted: list[tuple[str, str, int]]) -> dict[str, list[int]]:
    """Task → indices of the pictures whose maps are needed."""
    tasks = dict.fromkeys(task for _, task, _ in wanted)
    return {task: sorted({index for _, t, index in wanted if t == task}) for task in tasks}


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
