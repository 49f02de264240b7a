"""The generated part of docs/check.md: all checks, and what was measured of them (benchmarks/check/results.json)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from garnish.doctor.examine import chosen_checks

FOLDER = Path(__file__).parents[1] / "benchmarks" / "check"
MEASURED = FOLDER / "results.json"
#: What stands there until something is measured.
NOTHING = "Not measured yet: there is no `benchmarks/check/results.json`.\n"
sys.path.append(str(FOLDER))
from spoils import SPOILS  # noqa: E402  (beside the measurement)


def section() -> str:
    """The table of checks, and those of what was measured."""
    return "\n".join([*checks(), "", *measured()]) + "\n"


def checks() -> list[str]:
    """Lines: name, what it finds, level, fixes."""
    lines = ["| check | finds | level | `--fix` |", "| --- | --- | --- | --- |"]
    for name, check in sorted(chosen_checks().items()):
        fixes = "; ".join(check.fixes.values())
        lines.append(f"| `{name}` | {check.finds} | {check.level} | {fixes} |")
    return lines


def measured() -> list[str]:
    """Lines: check by set, then rows of spoils by set, then with what."""
    if not MEASURED.exists():
        return [NOTHING]
    found = json.loads(MEASURED.read_text("utf-8"))
    sets: Mapping[str, Any] = found["sets"]
    lines = [
        "Recall / precision over all seeds, in brackets the least and the largest of a seed where they differ, and how"
        " many were spoiled; a row for each check that a spoil is meant for:",
        "",
        f"| check | {' | '.join(sets)} |",
        f"| --- | {' | '.join('---' for _ in sets)} |",
    ]
    scores = by_check(sets)
    for check in sorted(scores):
        lines.append(f"| `{check}` | {' | '.join(_score(scores[check].get(name)) for name in sets)} |")
    lines += [
        "",
        "How many of the spoiled ones each check that is meant named, by spoil; summed over tasks and seeds:",
        "",
        f"| spoil | | check | {' | '.join(sets)} |",
        f"| --- | --- | --- | {' | '.join('---' for _ in sets)} |",
    ]
    for spoil in SPOILS:
        for check in spoil.meant:
            counts = [_named(sets[name]["rows"], spoil.name, check) for name in sets]
            if any(counts):
                lines.append(f"| {spoil.name} | {spoil.what} | `{check}` | {' | '.join(counts)} |")
    seeds = ", ".join(map(str, found["seeds"]))
    pictures = ", ".join(f"{name} {held['pictures']}" for name, held in sets.items())
    told = ", ".join(f"{name} {version}" for name, version in found["machine"].items())
    lines += ["", f"Seeds {seeds}; pictures: {pictures}; {told}."]
    return lines


def by_check(sets: Mapping[str, Any]) -> dict[str, dict[str, list[np.ndarray]]]:
    """Check → set → one array (named, spoiled, others named) a seed; rows of whole sets count in the second table."""
    meant = {spoil.name: spoil.meant for spoil in SPOILS if not spoil.whole}
    made: dict[str, dict[str, list[np.ndarray]]] = {}
    for name, held in sets.items():
        sums: dict[str, dict[str, np.ndarray]] = {}
        for row, counted in held["rows"].items():
            for check in meant.get(row.split()[0], ()):
                if _applies(check, held["rows"]):
                    for seed, numbers in counted[check].items():
                        of_seed = sums.setdefault(check, {})
                        of_seed[seed] = of_seed.get(seed, np.zeros(3, int)) + numbers
        for check, of_seed in sums.items():
            made.setdefault(check, {})[name] = list(of_seed.values())
    return made


def _applies(check: str, rows: Mapping[str, Any]) -> bool:
    """Whether a set has what a check looks at: those of two labels need two tasks."""
    tasks = {row.split()[1] for row in rows if row.startswith("shift ")}
    return len(tasks) > 1 or check not in ("label_shift", "label_mirrored", "contradiction")


def rates(of_seeds: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Recall and precision: of all seeds, then of each."""
    totals = [np.sum(of_seeds, 0), *of_seeds]
    recalls = [float(t[0] / t[1]) for t in totals]
    return recalls, [float(t[0] / (t[0] + t[2])) if t[0] + t[2] else float("nan") for t in totals]


def _score(of_seeds: Sequence[np.ndarray] | None) -> str:
    if not of_seeds:
        return ""
    shown = []
    for of_all, *each in rates(of_seeds):
        low, high = f"{min(each):.2f}", f"{max(each):.2f}"
        told = "–" if np.isnan(of_all) else f"{of_all:.2f}"
        shown.append(told if low == high or np.isnan(of_all) else f"{told} ({low} to {high})")
    return f"{' / '.join(shown)}, {sum(int(one[1]) for one in of_seeds)}"


def _named(rows: Mapping[str, Any], spoil: str, check: str) -> str:
    totals = [
        numbers for row, counted in rows.items() if row.split()[0] == spoil for numbers in counted[check].values()
    ]
    if not totals or not _applies(check, rows):
        return ""
    named, spoiled, _ = np.sum(totals, 0)
    return f"{named} of {spoiled}"
