"""Training steps of a trunk alone: garnish at its levels of memory beside PEFT, full fine-tuning and an older tree.

    python benchmarks/training/measure.py --method.rank 8 --trunks ViT-S Swin-T ConvNeXt-T MiT-B2 --old ../before
    python benchmarks/training/measure.py --table --old ../before      # every method on ViT-S, Swin-T and MiT-B0
    python benchmarks/training/measure.py --tiny --rounds 2            # tries the tool in seconds; writes nothing

A step is forward, the sum of the mean squares of all feature maps in float32, and backward: no heads, no optimizer.
ViT-S/14 (DINOv2-type) at 224x280, the others at 224²; batch 4, random weights, four tasks that share the method. Each
arm is a worker process of its own; they step in turn, every other round in the opposite order, and ratios are taken
within a round. On the CPU a step's seconds are the processor time of the one thread that works (``time.thread_time``,
one torch thread), on CUDA wall time between synchronisations.

Arms: ``fast``, ``lean``, ``least`` (garnish, ``trunk.memory``); ``bound`` (a level for each block, planned so
that half of fast's peak is not exceeded); ``peft`` (LoRA on timm's model, the same rank, α and layers); ``full``
(timm's model, all of it trained); ``old`` (the same method, as the tree ``--old`` trains by itself). What cannot be
measured is left out with the reason.

Bytes are of all storages alive above parameters, buffers and pictures, in a step of their own: ``kept`` when the
forward pass has returned, ``peak`` at most (gradients count). On CUDA also the peak of its allocator. Results are
merged by case into benchmarks/training/results.json; fewer than 15 rounds are printed but not kept there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tools")]
import torch  # noqa: E402
import training_costs  # noqa: E402  (in tools/)
from arms import CASES, LEVELS, TINY, Case  # noqa: E402
from stepping import Working  # noqa: E402
from trees import Worker, answer  # noqa: E402

from garnish import registry  # noqa: E402
from garnish.errors import GarnishError  # noqa: E402
from garnish.recipes.overrides import split_overrides  # noqa: E402

RESULTS = Path(__file__).with_name("results.json")
ARMS = (*LEVELS, "bound", "peft", "full", "old")
#: arms that others are divided by
REFERENCES = ("peft", "old", "fast")
TABLE_TRUNKS, TABLE_ARMS = ("ViT-S", "Swin-T", "MiT-B0"), ("fast", "lean", "old")
LEAST_ROUNDS, WARM_UP = 15, 2


def in_turn(steps: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = WARM_UP) -> dict[str, list[float]]:
    """Seconds of each arm's steps, round by round; every other round runs in the opposite order."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-warm_up, rounds):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            seconds = steps[name]()
            if number >= 0:
                taken[name].append(seconds)
    return taken


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return [round(values[0], 4)] * 3
    return [round(value, 4) for value in statistics.quantiles(values, n=4, method="inclusive")]


def compared(taken: Mapping[str, list[float]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Reference → arm → ratios of the steps (quartiles of those within a round) and of the bytes."""
    found: dict[str, Any] = {}
    for reference in [name for name in REFERENCES if name in taken]:
        rows = found[reference] = {}
        for arm in [name for name in taken if name != reference]:
            pairs = zip(taken[arm], taken[reference], strict=True)
            rows[arm] = {"step": quartiles([mine / theirs for mine, theirs in pairs])}
            mine, theirs = facts[arm]["bytes"], facts[reference]["bytes"]
            rows[arm] |= {
                what: round(mine[what] / theirs[what], 4) for what in ("kept", "peak", "cuda_peak") if what in mine
            }
    return found


class Bench:
    """The worker processes, one an arm, which serve case after case."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.workers: dict[str, Worker] = {}

    def worker(self, arm: str) -> Worker:
        """The arm's process, started when it is first needed."""
        if arm not in self.workers:
            tree = self.args.old if arm == "old" else ROOT
            self.workers[arm] = Worker(tree.resolve(), __file__)
        return self.workers[arm]

    def case(self, case: Case, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Build the arms, count their bytes, and let them step in turn."""
        facts: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        bound: dict[str, Any] = {}
        for arm in self.args.arms:  # fast comes first
            levels = LEVELS.get(arm, "")
            if arm == "old" and self.args.old is None:
                left_out[arm] = "no tree was given (--old)"
                continue
            if arm == "bound":
                if "fast" not in facts:
                    left_out[arm] = "it is a share of fast's peak, which was not measured"
                    continue
                bound = {"bytes": facts["fast"]["bytes"]["peak"] // 2}
                levels = self.args.levels or bound["bytes"]
            where = (self.args.device, self.args.bf16)
            self.worker(arm).ask("Build", arm, dataclasses.asdict(case), method, dict(options), levels, *where)
            told = self.worker(arm).ask("facts")
            if "left_out" in told:
                left_out[arm] = told["left_out"]
            else:
                facts[arm] = told
        if any(told["maps"] != other["maps"] for told in facts.values() for other in facts.values()):
            sys.exit(f"{case.trunk}: the arms' maps differ in shape: { {a: f['maps'] for a, f in facts.items()} }")
        taken = in_turn({arm: lambda arm=arm: self.worker(arm).ask("step") for arm in facts}, self.args.rounds)
        if "bound" in facts:
            bound["peak_over_bound"] = round(facts["bound"]["bytes"]["peak"] / bound["bytes"], 4)
        for arm, seconds in taken.items():
            facts[arm]["seconds"] = quartiles(seconds)
        return {
            "trunk": case.trunk,
            "size": list(case.size),
            "batch": case.batch,
            "method": method,
            "options": dict(options),
            "arms": {arm: {k: v for k, v in told.items() if k != "maps"} for arm, told in facts.items()},
            "over": compared(taken, facts),
            "left_out": left_out,
            **({"bound": bound} if bound else {}),
        }

    def about(self) -> dict[str, Any]:
        """What a case was measured with."""
        found: dict[str, Any] = {
            "command": shlex.join(["python", "benchmarks/training/measure.py", *self.args.given]),
            "rounds": self.args.rounds,
            "device": self.args.device,
            "dtype": "bfloat16 autocast" if self.args.bf16 else "float32",
            "clock": "processor time, one thread" if self.args.device == "cpu" else "wall time",
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)}
            | {name: metadata.version(name) for name in ("timm", "peft") if _installed(name)},
            "tree": commit(ROOT),
        }
        if self.args.device == "cuda":
            found["machine"] = torch.cuda.get_device_name()
        if self.args.old is not None:
            found["old"] = commit(self.args.old)
        return found

    def close(self) -> None:
        """Let all workers end."""
        for worker in self.workers.values():
            worker.close()


def _installed(name: str) -> bool:
    return bool(list(metadata.distributions(name=name)))


def commit(tree: Path) -> str:
    """The commit of a checkout, with a + where its code differs from it; "no checkout" where git knows none."""

    def asked(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tree), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = asked("describe", "--always", "--abbrev=10", "--exclude=*")
        return commit + "+" * bool(asked("status", "--porcelain", "--", "*.py"))
    except (OSError, subprocess.CalledProcessError):
        return "no checkout"


def read(path: Path) -> dict[str, Any]:
    """What has been measured so far, by case."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def parsed(given: Sequence[str]) -> tuple[argparse.Namespace, list[tuple[str, str, dict[str, Any]]]]:
    """Options, and what to measure: (label of the trunk, method, its options)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trunks", nargs="+", choices=list(CASES), default=None)
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=None, help="all when left out; --table: fast lean old"
    )
    parser.add_argument("--table", action="store_true", help="every method at its defaults")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="of the table")
    parser.add_argument("--old", type=Path, help="a checkout of an older tree")
    parser.add_argument("--levels", type=lambda text: text.split(","), help="levels of the arm bound, one a block")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--batch", type=int, help="other than 4")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="under autocast to bfloat16")
    parser.add_argument("--tiny", action="store_true", help="trunks of a few thousand numbers, to try the tool")
    parser.add_argument("--out", type=Path, help=f"other than {RESULTS.name}; keeps any number of rounds")
    try:
        rest, method = split_overrides(given, ("method",))
        args = parser.parse_args(rest)
        if args.table and method:
            parser.error("--table measures every method at its defaults; --only names some of them, not --method")
        if args.only and not args.table:
            parser.error("--only names methods of --table; add it, or use --method")
        name = str(method.pop("method", "LoRA"))
        options = {key.removeprefix("method."): value for key, value in method.items()}
        methods = (args.only or list(registry.classes("adapters"))) if args.table else [name]
        for each in methods:
            registry.build("adapters", each, options)
    except GarnishError as error:
        parser.error(str(error))
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    if odd := [level for level in args.levels or () if level not in LEVELS]:
        parser.error(f"--levels: {odd[0]!r} is none of {', '.join(LEVELS)}")
    if "bound" in (args.arms or ()) and "fast" not in args.arms:
        parser.error("--arms bound needs fast beside it")
    # paths are kept as seen from this tree's root, for results are published
    paths = {str(path): os.path.relpath(path.resolve(), ROOT) for path in (args.old, args.out) if path is not None}
    args.given = [paths.get(word, word) for part in given for word in part.split("=", 1 if part[:2] == "--" else 0)]
    asked = args.arms or (TABLE_ARMS if args.table else ARMS)
    args.arms = [arm for arm in ARMS if arm in asked]
    trunks = args.trunks or (TABLE_TRUNKS if args.table else ("ViT-S",))
    return args, [(trunk, each, options) for trunk in trunks for each in methods]


def label_of(trunk: str, method: str, options: Mapping[str, Any], args: argparse.Namespace) -> str:
    """Key of a case among the results."""
    words = [method, *(f"{name}={value}" for name, value in options.items())]
    ways = [args.device] * (args.device != "cpu") + ["bf16"] * args.bf16 + [f"batch {args.batch}"] * bool(args.batch)
    return "/".join(["table" if args.table else "arms", *ways, trunk, " ".join(words)])


def main(given: Sequence[str]) -> None:
    if list(given) == ["--worker"]:
        answer({"Build": Working})
        return
    args, wanted = parsed(given)
    out = args.out or (RESULTS if args.rounds >= LEAST_ROUNDS and not args.tiny else None)
    bench = Bench(args)
    fresh: dict[str, Any] = {}
    for trunk, method, options in wanted:
        case = (TINY if args.tiny else CASES)[trunk]
        if args.batch:
            case = dataclasses.replace(case, batch=args.batch)
        key = label_of(trunk, method, options, args)
        fresh[key] = bench.case(case, method, options) | {"about": bench.about()}
        for arm, why in fresh[key]["left_out"].items():
            print(f"{key}: {arm} is left out: {why}", file=sys.stderr, flush=True)
        if out is not None:  # after every case, for a table takes hours
            out.write_text(json.dumps(read(out) | {key: fresh[key]}, indent=1, sort_keys=True) + "\n", "utf-8")
    bench.close()
    print("\n".join(training_costs.tables(fresh)))
    print(f"written to {out}" if out else "not kept: --tiny, or fewer than 15 rounds and no --out", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
