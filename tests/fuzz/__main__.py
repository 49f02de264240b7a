"""``python -m tests.fuzz --inputs 10000 --seed 0``: run the fuzzer, print its table and every finding."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from .harness import LIMIT, MEMORY, run
from .surface import Surface
from .verdicts import FINDINGS, Verdict

_COLUMNS = ("refused", "accepted", *FINDINGS)


def shares(surfaces: Sequence[Surface], inputs: int) -> dict[Surface, int]:
    """How many of the inputs each surface gets."""
    whole = sum(surface.share for surface in surfaces)
    return {surface: max(round(inputs * surface.share / whole), 1) for surface in surfaces}


def table(counts: dict[str, Counter[str]]) -> str:
    """Surface × what its inputs came to, in Markdown."""
    total: Counter[str] = sum(counts.values(), Counter())
    lines = [f"| surface | inputs | {' | '.join(_COLUMNS)} |", "| --- " * (len(_COLUMNS) + 2) + "|"]
    for name, found in [*counts.items(), ("all", total)]:
        lines.append(f"| {name} | {found.total()} | {' | '.join(str(found[column]) for column in _COLUMNS)} |")
    return "\n".join(lines)


def _processor() -> float:
    """Seconds that this process and those that ended have computed."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main(words: Sequence[str] | None = None) -> int:
    """Run the fuzzer; returns 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--surface", action="append", help="only this one (may be given several times)")
    parser.add_argument("--one", metavar="SURFACE:SEED:NUMBER", help="one input, with the traceback of what it raises")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that an input may take")
    parser.add_argument("--memory", type=float, default=MEMORY / 2**30, help="GiB that an input may take")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every verdict, a line of JSON each")
    given = parser.parse_args(words)
    memory = int(given.memory * 2**30)
    from .surfaces.all import SURFACES, surface_named

    if given.one:
        name, seed, number = given.one.split(":")
        found = list(run(surface_named(name), [int(number)], int(seed), given.limit, memory))
        print(json.dumps([verdict.plain() for verdict in found], indent=1))
        return int(any(verdict.is_finding for verdict in found))
    chosen = [surface_named(name) for name in given.surface] if given.surface else [made() for made in SURFACES]
    counts: dict[str, Counter[str]] = {}
    findings: dict[str, list[Verdict]] = defaultdict(list)
    stream = given.json.open("w") if given.json else None
    for surface, inputs in shares(chosen, given.inputs).items():
        began, used = time.monotonic(), _processor()
        found = counts[surface.name] = Counter()
        slowest = 0.0
        for verdict in run(surface, range(inputs), given.seed, given.limit, memory):
            found[verdict.kind] += 1
            slowest = max(slowest, verdict.seconds)
            if stream is not None:
                print(json.dumps(verdict.plain()), file=stream, flush=True)
            if verdict.is_finding:
                findings[verdict.key].append(verdict)
        seconds = time.monotonic() - began
        told = f"{seconds:.0f} s, {_processor() - used:.0f} s of a processor"
        print(f"{surface.name}: {inputs} in {told}, slowest {slowest:.1f} s, {dict(found)}", file=sys.stderr)
    print(table(counts))
    for key, of_one_cause in sorted(findings.items()):
        first = of_one_cause[0]
        print(f"\n{key} ({len(of_one_cause)})\n  {first.what}\n  {first.told}")
        print(f"  python -m tests.fuzz --one {first.surface}:{given.seed}:{first.number}")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
