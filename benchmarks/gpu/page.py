"""docs/gpu.md: what was found on an accelerator, or that nothing was run on one yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu.md"
HEAD = """\
# On an accelerator

    sh benchmarks/gpu.sh

needs one CUDA device, Python 3.11 or newer (meant for: 3.12, torch 2.11), what `pyproject.toml` lists, and PEFT for its
arms; no network. It takes eight minutes at most (`--minutes` sets another limit), says what is missing and what it had
no time for, ends with status 1 where a check fails, and writes this page anew. `PYTHON=/path/to/python3` picks the
interpreter. `sh benchmarks/gpu.sh --device cpu --quick` runs all of it but CUDA itself, on tiny trunks, and prints the
page.

"""
WHAT = """\
What it does, each in a process of its own with a time box:

- *conformance*: methods and families of the conformance tests, in float32 with TF32 off and in float64: fresh adapters
  change nothing, a mixed batch equals its pictures alone, merged equals unmerged, gradients at `lean` and `least` equal
  those at `fast`, the device computes what the CPU does.
- *eager*: training steps of a trunk alone (LoRA, rank 8; [the same
  arms](benchmarks.md#training-steps-of-a-trunk-alone)): garnish at `fast`, `lean` and `least`, PEFT, and timm's model
  trained whole; float32 and bf16 autocast; times and bytes.
- *mixed*: a batch whose pictures want four owners in turn against each owner alone, passes and training steps.
- *compiled*: the same arms through `torch.compile`, with the time that compiling takes.
"""
TITLES = {
    "conformance": "Conformance",
    "eager": "Training steps of a trunk alone",
    "mixed": "Mixed rows",
    "compiled": "Compiled",
}


def text(found: Mapping[str, Any] | None) -> str:
    """The page; None: nothing was run."""
    if found is None:
        return HEAD + "**Not run**: no accelerator was at hand, so nothing is known of one yet.\n\n" + WHAT
    return HEAD + "\n".join([*_provenance(found), "", WHAT, *_parts(found)])


def failed(found: Mapping[str, Any]) -> bool:
    """Whether a check failed, an item broke or a part ended badly; what was cut for want of time does not count."""
    parts = found["parts"].values()
    rows = [row for part in parts for row in part["rows"]]
    return any("error" in row or row.get("over") for row in rows) or any("status" in part["ended"] for part in parts)


def not_done(part: Mapping[str, Any]) -> list[str]:
    """Items of a part that it did not get to, or did not finish."""
    listed = [label for row in part["rows"] for label in row.get("items", ())]
    there = {row.get("item") for row in part["rows"]}
    return [label for label in listed if label not in there]


def _provenance(found: Mapping[str, Any]) -> list[str]:
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = f", {machine['memory'] / 2**30:.0f} GiB, CUDA {machine['cuda']}" if machine["memory"] else ""
    lines = [f"Run on {machine['name']}{memory}; Python {machine['python']}, {versions}; {found['seconds']} s in all:"]
    lines += ["", f"    {found['command']}"]
    if found["quick"] or found["device"] == "cpu":
        lines += ["", "**A trial of the script**: tiny trunks or no accelerator, so the figures mean nothing."]
    if found["missing"]:
        lines += ["", f"Of what is asked for: {'; '.join(found['missing'])}."]
    return lines


def _parts(found: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    tables = {"conformance": _conformance, "eager": _eager, "mixed": _mixed, "compiled": _compiled}
    for name, part in found["parts"].items():
        lines += [f"## {TITLES[name]}", ""]
        rows = [row for row in part["rows"] if "item" in row]
        if good := [row for row in rows if "error" not in row]:
            lines += [*tables[name](good), ""]
        wrong = [f"{row['item']}: {row['error']}" for row in rows if "error" in row]
        wrong += [f"{row['item']}: too far apart ({', '.join(row['over'])})" for row in rows if row.get("over")]
        lines += [f"- **failed**: {line}" for line in wrong]
        if part["ended"]:
            lines.append(
                f"- The part was {part['ended']}." if "status" not in part["ended"] else f"- It {part['ended']}."
            )
        if cut := not_done(part):
            lines.append(f"- Not done for want of time: {'; '.join(cut)}.")
        lines += [""] * bool(wrong or part["ended"] or cut)
    return lines


def _conformance(rows: list[Mapping[str, Any]]) -> list[str]:
    names = list(rows[0]["float64"])
    right = sum(not row["over"] for row in rows)
    lines = [
        f"{right} of {len(rows)} cases within their bounds. Largest difference over largest value, float32 / float64:",
        "",
        f"| case | {' | '.join(names)} |",
        "| --- |" + " --- |" * len(names),
    ]
    for row in rows:
        cells = [_both(row["float32"][name], row["float64"][name]) for name in names]
        lines.append(f"| {row['item']} | {' | '.join(cells)} |")
    return lines


def _both(one: float | str, other: float | str) -> str:
    return one if isinstance(one, str) else f"{one:.0e} / {other:.0e}"


def _eager(rows: list[Mapping[str, Any]]) -> list[str]:
    reference = rows[0]["reference"]
    lines = [
        f"Batch {rows[0]['batch']}, median of {rows[0]['rounds']} rounds in turn; MB above what was there before:",
        "",
        f"| case | arm | step, ms | over {reference}'s | kept, MB | peak, MB | CUDA's allocator, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        for arm, told in row["arms"].items():
            held = told["bytes"]
            cells = [f"{1e3 * told['seconds']:.2f}", f"{told['over']:.3f}"]
            cells += [f"{held[what] / 1e6:,.1f}" if what in held else "–" for what in ("kept", "peak", "cuda_peak")]
            lines.append(f"| {row['item']} | {arm} | {' | '.join(cells)} |")
        lines += [f"| {row['item']} | {arm} | left out: {why} | | | | |" for arm, why in row["left_out"].items()]
    return lines


def _mixed(rows: list[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"Batch {rows[0]['batch']}, four owners; LoRA sits from the block named on:",
        "",
        "| case | mixed, ms | each alone, ms | mixed over alone | over the bare trunk | outputs apart |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        times, over = row["seconds"], row["mixed_over"]
        bare = f"{over['trunk']:.2f}" if "trunk" in over else "–"
        cells = [f"{1e3 * times['mixed']:.2f}", f"{1e3 * times['alone']:.2f}", f"{over['alone']:.3f}", bare]
        lines.append(f"| {row['item']} | {' | '.join(cells)} | {row['apart']:.0e} |")
    return lines


def _compiled(rows: list[Mapping[str, Any]]) -> list[str]:
    lines = [
        "ViT-S; backend, seconds of the first step, and steps compiled over eager, in turn:",
        "",
        "| case | backend | first step, s | eager, ms | compiled, ms | over | loss apart | peaks, both, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if "left_out" in row:
            lines.append(f"| {row['item']} | left out: {row['left_out']} | | | | | | |")
            continue
        peaks = row.get("peaks")
        held = f"{peaks['eager'] / 1e6:,.1f} / {peaks['compiled'] / 1e6:,.1f}" if peaks else "–"
        eager, made = row["eager"], row["compiled"]
        cells = [f"{row['warm_up']:.1f}", f"{1e3 * eager['seconds']:.2f}", f"{1e3 * made['seconds']:.2f}"]
        cells += [f"{made['over']:.3f}", f"{row['loss_apart']:.0e}", held]
        lines.append(f"| {row['item']} | {row['backend']} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print(text(None), end="")
