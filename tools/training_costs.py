"""The generated part of docs/benchmarks.md on training steps, from benchmarks/training/results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parents[1] / "benchmarks" / "training" / "results.json"
#: what stands there until something is measured
NOTHING = "Not measured yet: there is no `benchmarks/training/results.json`.\n"


def section() -> str:
    """The tables of what is in the file, or that there is none."""
    if not MEASURED.exists():
        return NOTHING
    return "\n".join(tables(json.loads(MEASURED.read_text("utf-8")))) + "\n"


def tables(found: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: one table of single cases, one of every method, and what they were measured with."""
    lines: list[str] = []
    for kind, title in (("arms", "Arms beside each other"), ("table", "Every method at its defaults")):
        cases = {key: case for key, case in found.items() if key.split("/")[0] == kind}
        if not cases:
            continue
        lines += [
            f"**{title}**; in brackets the quartiles of the ratios within a round:",
            "",
            "| case | arm | kept, MB | peak, MB | gradients, MB | step, s | over | kept | peak | step |",
            "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
        ]
        for key, case in sorted(cases.items()):
            lines += _rows(key.partition("/")[2], case)
        lines.append("")
        lines += _left_out(cases)
        lines += _about(cases)
    return lines


def _rows(label: str, case: Mapping[str, Any]) -> list[str]:
    """A line an arm and reference."""
    lines = []
    for arm, told in case["arms"].items():
        held = told["bytes"]
        mine = [label, arm, *(f"{held[what] / 1e6:,.1f}" for what in ("kept", "peak", "gradients"))]
        mine.append(f"{told['seconds'][1]:.3f}")
        ratios = [(reference, rows[arm]) for reference, rows in case["over"].items() if arm in rows]
        for reference, row in ratios or [("", None)]:
            theirs = ["", "", "", ""]
            if row is not None:
                low, middle, high = row["step"]
                theirs = [
                    reference,
                    f"{row['kept']:.3f}",
                    f"{row['peak']:.3f}",
                    f"{middle:.3f} ({low:.3f} to {high:.3f})",
                ]
            lines.append("| " + " | ".join([*mine, *theirs]) + " |")
            mine = [""] * len(mine)
    if "peak_over_bound" in case.get("bound", {}):
        bound = case["bound"]
        size, ratio = f"{bound['bytes'] / 1e6:,.1f} MB", f"{bound['peak_over_bound']:.3f}"
        lines.append(f"| {label} | bound, of {size} | | | | | bound | | {ratio} | |")
    return lines


def _left_out(cases: Mapping[str, Any]) -> list[str]:
    """What was not measured, and why: a line for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for key, case in sorted(cases.items()):
        for arm, why in case["left_out"].items():
            reasons.setdefault((arm, why), []).append(key.partition("/")[2])
    lines = []
    for (arm, why), keys in reasons.items():
        named = "all of them" if len(keys) == len(cases) > 1 else ", ".join(keys)
        lines.append(f"- `{arm}` is left out of {named}: {why}.")
    return [*lines, ""] if lines else []


def _about(cases: Mapping[str, Any]) -> list[str]:
    """Each command once, with its machine and versions."""
    lines: dict[str, None] = {}
    for case in cases.values():
        about = case["about"]
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        old = f", old tree {about['old']}" if "old" in about else ""
        where = about.get("machine", f"{about['cores']} CPU cores")
        lines[f"    {about['command']}"] = None
        how = f"{about['rounds']} rounds, {about['dtype']}, {about['clock']}, {where}"
        lines[f"- {how}; {versions}; tree {about['tree']}{old}."] = None
    code = [line for line in lines if line.startswith("    ")]
    return [*code, "", *(line for line in lines if not line.startswith("    ")), ""]
