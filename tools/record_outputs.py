"""Record what models put out before code is moved, so that nothing is changed by the move.

    python tools/record_outputs.py --out before.json                 # of this tree, or of --tree PATH
    python tools/record_outputs.py --old ../before --allow 'cnn/*:train*'   # this tree against another one, in one job

Every method × family × {shared, per task} with tiny widths, and models of many owners, decoders, places of the maps,
checkpointing, drop-path, bundles, merged trunks and short runs of ``fit``. Adapters are pushed off their start. Of each
are recorded outputs in evaluation and training, of mixed batches too, gradients of all that is trained, counts, names
and what is refused: as digests, which are those of one machine and version of torch. With ``--old`` both trees run
here; differences are printed with their size, and the exit status is 1 if one is on no ``--allow``.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
Found = dict[str, str]


class Worker:
    """A process that records cases of one source tree."""

    def __init__(self, tree: Path) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("recorded_values.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **one_thread, **quiet, "PYTHONPATH": str(tree / "src")},
        )
        self.facts = self._answer()
        if Path(self.facts["tree"]) != tree:
            sys.exit(f"{tree}: garnish was imported from {self.facts['tree']}; give a tree that holds src/garnish")

    def record(self, case: str, values: Path | None = None) -> Found:
        """What one case gives; its tensors go to ``values``."""
        assert self.process.stdin is not None
        print(json.dumps({"case": case, "values": values and str(values)}), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("a recording process ended early; its last words stand above")
        return json.loads(line)

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def record(tree: Path, only: Sequence[str]) -> dict[str, Any]:
    """All cases of one tree, by two processes."""
    with ThreadPoolExecutor(2) as pool:
        workers = list(pool.map(Worker, [tree] * 2))
        names = chosen(workers[0].facts["cases"], only)
        waiting = iter(names)
        lock = threading.Lock()

        def work(worker: Worker) -> dict[str, Found]:
            done: dict[str, Found] = {}
            while True:
                with lock:
                    case = next(waiting, None)
                if case is None:
                    worker.close()
                    return done
                done[case] = worker.record(case)

        found = {case: values for part in pool.map(work, workers) for case, values in part.items()}
    return {"torch": workers[0].facts["torch"], "cases": {name: found[name] for name in names}}


def compare(old: Path, new: Path, only: Sequence[str], allow: Sequence[str], lines: int | None) -> int:
    """Both trees case by case; prints what differs, and returns how many values do that nothing allows.

    Args:
        old: source tree before.
        new: source tree after.
        only: patterns of names of cases.
        allow: patterns of ``case:value`` that may differ.
        lines: most differences to print of one case; None: all.
    """
    counts = {"equal": 0, "allowed": 0, "different": 0}
    used: set[str] = set()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        workers = list(pool.map(Worker, [old, new]))
        names = chosen(list(dict.fromkeys(n for w in workers for n in w.facts["cases"])), only)
        files = [Path(place) / side for side in ("old", "new")]
        for case in names:
            sides = [case in worker.facts["cases"] for worker in workers]
            if not all(sides):
                differing = [("case", f"only in the {'old' if sides[0] else 'new'} tree")]
            else:
                found = list(pool.map(lambda w, f, case=case: w.record(case, f), workers, files))
                differing = list(differences(*found, *files))
                counts["equal"] += len(found[1]) - len(differing)
            told: dict[str, list[str]] = {"allowed": [], "different": []}
            for key, how in differing:
                patterns = [pattern for pattern in allow if fnmatch.fnmatchcase(f"{case}:{key}", pattern)]
                used.update(patterns)
                told["allowed" if patterns else "different"].append(f"{case}:{key}: {how}")
            for what, texts in told.items():
                counts[what] += len(texts)
                for text in texts[:lines]:
                    print(f"{what} {text}", flush=True)
                if len(texts) > len(texts[:lines]):
                    print(f"{what} {case}: and {len(texts[lines:])} more; --all prints them", flush=True)
        for worker in workers:
            worker.close()
    print(f"{len(names)} cases: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
    for pattern in allow:
        if pattern not in used:
            print(f"--allow {pattern!r} met no difference; leave it out")
    return counts["different"]


def differences(old: Found, new: Found, old_file: Path, new_file: Path) -> Iterator[tuple[str, str]]:
    """(name, how) of each value that is not the same in both, with the largest difference where shapes agree."""
    keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    if not keys:
        return
    befores, afters = load_file(old_file), load_file(new_file)
    for key in keys:
        before, after = befores.get(key), afters.get(key)
        if before is not None and after is not None and before.shape == after.shape:
            far = np.abs(before.astype(np.float64) - after.astype(np.float64)).max(initial=0.0)
            most = np.abs(before.astype(np.float64)).max(initial=0.0)
            yield key, f"largest difference {far:.3g}, of values up to {most:.3g}"
        else:
            yield key, "{!r} became {!r}".format(*excerpts(old.get(key, "nothing"), new.get(key, "nothing")))


def excerpts(before: str, after: str, around: int = 60) -> tuple[str, str]:
    """Where two texts part: the same piece of each from a little before to a little behind it."""
    pairs = enumerate(zip(before, after, strict=False))
    parted = next((at for at, (one, other) in pairs if one != other), min(len(before), len(after)))
    start = max(0, parted - around)
    return tuple(f"{'…' * (start > 0)}{text[start : start + 2 * around]}" for text in (before, after))


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Names that match one of the patterns; all where there is none."""
    found = [name for name in names if not only or any(fnmatch.fnmatchcase(name, pattern) for pattern in only)]
    if not found:
        sys.exit(f"--only {' '.join(only)}: no such case; names are like {', '.join(names[:3])}")
    return found


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the digests of --tree")
    parser.add_argument("--tree", type=Path, default=ROOT, help="source tree; this one when left out")
    parser.add_argument("--old", type=Path, help="source tree that --tree is compared with")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="cases, e.g. 'swin/LoRA*'")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PATTERN", help="differences, e.g. 'cnn/*/shared:train/*'"
    )
    parser.add_argument("--all", action="store_true", help="print all differences of a case, not the first ten")
    args = parser.parse_args(given)
    if (args.out is None) == (args.old is None):
        parser.error("give --out FILE to record, or --old PATH to compare")
    if args.allow and args.old is None:
        parser.error("--allow belongs to --old")
    started = time.monotonic()
    if args.old is not None:
        status = int(
            compare(args.old.resolve(), args.tree.resolve(), args.only, args.allow, None if args.all else 10) > 0
        )
    else:
        found = record(args.tree.resolve(), args.only)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        kinds = [next(iter(values)) for values in found["cases"].values()]
        print(f"{len(kinds)} cases, {kinds.count('refused')} refused, {kinds.count('broken')} broken: {args.out}")
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return status if args.old is not None else 0


if __name__ == "__main__":
    sys.exit(main())
