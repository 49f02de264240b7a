"""The generated part of docs/decoders.md, from benchmarks/decoders/results.json."""

from __future__ import annotations

import json
import statistics
import textwrap
from pathlib import Path
from typing import Any

from garnish import registry

MEASURED = Path(__file__).parents[1] / "benchmarks" / "decoders" / "results.json"
PAGE_HEAD = """\
# What decoders cost

Every head at its default options, for 1, 4 and 16 tasks on one frozen trunk. Their options stand in
[methods.md](methods.md). A head is built once a task unless it is a joint one, which the tasks of one `adapt` call
share.

"""


def decoders_table() -> str:
    """One table a trunk, and how the numbers came about."""
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    lines: list[str] = []
    for label, trunk in sorted(found["trunks"].items()):
        lines += _trunk(label, trunk, found["run"]["tasks"])
    return "\n".join([*lines, *_provenance(found)]) + "\n"


def _trunk(label: str, trunk: dict[str, Any], counts: list[int]) -> list[str]:
    """The table of one trunk."""
    over = " / ".join(map(str, counts))
    lines = [
        f"## {label} at 224²",
        "",
        f"`{trunk['name']}`; the trunk itself takes {trunk['macs_encoder'] / 1e9:.2f} GMACs. Cells hold the values for "
        f"{over} tasks.",
        "",
        "| head | parameters, M | GMACs | ms | MB for backward |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(n for n, cls in registry.classes("heads").items() if cls.decodes):
        rows = [trunk["heads"].get(name, {}).get(str(count), {"refused": "not measured"}) for count in counts]
        refused = [row["refused"] for row in rows if "refused" in row]
        if len(refused) == len(rows):
            lines.append(f"| {name} | {refused[0]} | | | |")
            continue
        cells = [
            " / ".join("–" if "refused" in row else f"{row[key] / unit:{form}}" for row in rows)
            for key, unit, form in (
                ("parameters", 1e6, ".2f"),
                ("macs", 1e9, ".2f"),
                ("seconds", 1e-3, ".0f"),
                ("bytes_for_backward", 1e6, ".0f"),
            )
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _provenance(found: dict[str, Any]) -> list[str]:
    """How the numbers came about, and how far to trust the times."""
    machine, run = found["machine"], found["run"]
    rounds = [
        row["rounds"]
        for trunk in found["trunks"].values()
        for head in trunk["heads"].values()
        for row in head.values()
        if "rounds" in row
    ]
    apart = statistics.median((max(r) - min(r)) / statistics.median(r) for r in rounds)
    text = (
        "Measured by `benchmarks/decoders/measure.py`: random weights, one picture, float32, tasks with 21, 7, 1 and "
        "3 outputs in turn. MACs count matrix products. Time is that of the decoders alone in evaluation mode, "
        f"resizing to the picture included: processor time, median of {run['rounds']} passes, threads: "
        f"{machine['threads']} of a shared CPU with {machine['cores']} cores, torch {machine['torch']}; "
        f"the passes of one row lie {100 * apart:.0f}% apart (median), so smaller differences mean nothing. Bytes are "
        "of distinct storages that a training pass keeps for the backward pass, the trunk's maps included, parameters "
        "left out."
    )
    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)
