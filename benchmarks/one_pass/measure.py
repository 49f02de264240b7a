"""One pass stays one pass: encoder time, end-to-end time, MACs and bytes over T = 1, 2, 4, 8 and 16 tasks.

    python benchmarks/one_pass/measure.py counts      # MACs, and bytes that one training forward keeps for backward
    python benchmarks/one_pass/measure.py times       # inference, arms in turn, round after round
    MALLOC_MMAP_THRESHOLD_=2147483648 MALLOC_TRIM_THRESHOLD_=8589934592 python benchmarks/one_pass/measure.py times
    python benchmarks/one_pass/measure.py forks       # LoRA a task from a block on: one forked pass against T passes
    python benchmarks/one_pass/measure.py side        # side tuning beside LoRA on a ViT-S/14: bytes, training steps
    python benchmarks/one_pass/measure.py table
    python benchmarks/one_pass/measure.py plot        # docs/images/one_pass.png

Swin-T with random weights (times do not depend on them), a SegFormer head a task. Each arm is run in two modes: all its
tasks in one pass of the trunk, rows forked where the method wants it ("joint"), and one pass a task ("passes"); ``own``
is the mode that the model itself chooses. Ratios are taken within a round, so that slow stretches of the machine fall
on both sides. Results are kept in benchmarks/one_pass/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import garnish as gn
from garnish.backbones.backbone import Backbone
from garnish.engine import context, shared_passes
from garnish.engine.adapter import Method
from garnish.engine.maps import TaskMaps
from garnish.model.model import Model
from garnish.model.report import bytes_for_backward, flop_counter

RESULTS = Path(__file__).with_name("results.json")
#: set before the run, so that glibc's malloc keeps what is freed and does not get it from the kernel page by page again
KEEPING = "MALLOC_TRIM_THRESHOLD_" in os.environ
PLOT = Path(__file__).resolve().parents[2] / "docs" / "images" / "one_pass.png"
COUNTS = (1, 2, 4, 8, 16)
MODES = ("joint", "passes")
ARMS = {
    "heads only": "heads only",
    "vmt": "VMT-Adapter",
    "mtlora": "MTLoRA, r = 16",
    "lora-first": "LoRA a task, from block 0",
    "lora-middle": "LoRA a task, from stage 2",
    "lora-last": "LoRA a task, in stage 3",
    "side": "side tuning a task",
}


def method_of(arm: str | tuple[int, int], trunk: Backbone) -> Method:
    """The method of an arm; LoRA of rank 8 on every linear layer of the blocks from some (stage, block) on."""
    first = {"lora-first": (0, 0), "lora-middle": (2, 0), "lora-last": (3, 0)}.get(arm, arm)
    if isinstance(first, tuple):
        roles = ("qkv", "proj", "fc1", "fc2")
        linear = [s for s in trunk.sites() if s.kind == "layer" and s.role in roles]
        names = [s.name for s in linear if (s.stage, s.block) >= first]
        return gn.LoRA(rank=8, layers=tuple(names), per_task=True)
    others = {
        "heads only": gn.Frozen(per_task=True),
        "vmt": gn.VMTAdapter(),
        "mtlora": gn.MTLoRA(rank=16),
        "side": gn.SideTuning(per_task=True),
    }
    return others[arm]


def build(arm: str | tuple[int, int], num_tasks: int = max(COUNTS)) -> Model:
    """A model of one arm with so many tasks of four classes; adapters are moved away from zero."""
    torch.manual_seed(0)
    taps = "merged" if arm == "mtlora" else "stage"  # what decoders of that line read
    trunk = gn.backbone("swin_tiny_patch4_window7_224", weights=None, taps=taps)
    tasks = {f"t{i:02d}": gn.Semantic(classes=4) for i in range(num_tasks)}
    model = gn.adapt(trunk, method_of(arm, trunk), tasks=tasks, head=gn.SegFormerHead(channels=64))
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def own_mode(model: Model) -> str:
    """How the model runs two tasks by itself."""
    calls = []
    handle = model.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(torch.rand(1, 3, 32, 32), tasks=list(model.tasks)[:2])
    handle.remove()
    return "passes" if len(calls) > 1 else "joint"


@contextmanager
def forced(model: Model, mode: str) -> Iterator[None]:
    """One group for all owners that tasks use, or one for each."""
    own = shared_passes.group_of
    shared_passes.group_of = lambda owner, body, **how: owner.number if mode == "passes" else "rows"
    try:
        yield
    finally:
        shared_passes.group_of = own


class Watch:
    """Seconds of the trunk alone, summed over the passes of a call: by the wall clock, and of the processor.

    A task's scaled maps are made when its head reads them; that is the trunk's time too.
    """

    def __init__(self, trunk: nn.Module) -> None:
        self.start = (0.0, 0.0)
        self.spent = [0.0, 0.0]
        trunk.register_forward_pre_hook(self._begin)
        trunk.register_forward_hook(self._end)
        read = TaskMaps.of

        def timed(maps: TaskMaps, owner: int) -> Tensor:
            if not any(maps.tap is tap for tap in trunk.taps):
                return read(maps, owner)
            self._begin()
            made = read(maps, owner)
            self._end()
            return made

        TaskMaps.of = timed

    def _begin(self, *_: object) -> None:
        self.start = now()

    def _end(self, *_: object) -> None:
        for clock, value in enumerate(now()):
            self.spent[clock] += value - self.start[clock]


def now() -> tuple[float, float]:
    """Wall clock, and processor time of this process."""
    return time.perf_counter(), time.process_time()


def time_once(model: Model, watch: Watch, x: Tensor, tasks: list[str], mode: str) -> dict[str, float]:
    """Seconds of one call, in evaluation mode."""
    watch.spent = [0.0, 0.0]
    with torch.no_grad(), forced(model, mode):
        start = now()
        model(x, tasks=tasks)
        total = [after - before for before, after in zip(start, now(), strict=True)]
    return {
        "encoder wall": watch.spent[0],
        "encoder cpu": watch.spent[1],
        "all wall": total[0],
        "all cpu": total[1],
    }


def command_times(args: argparse.Namespace) -> None:
    """Round after round over arms, task counts and modes."""
    models = {arm: build(arm) for arm in args.arms}
    watches = {arm: Watch(model.backbone) for arm, model in models.items()}
    own = {arm: own_mode(model) for arm, model in models.items()}
    x = torch.rand(args.batch, 3, args.size, args.size)
    taken: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for number in range(-1, args.rounds):  # one round to warm up
        for arm, model in models.items():
            for count in args.counts if number % 2 else args.counts[::-1]:
                for mode in MODES if number % 2 else MODES[::-1]:
                    tasks = list(model.tasks)[:count]
                    once = time_once(model, watches[arm], x, tasks, mode)
                    if number >= 0:
                        taken.setdefault((arm, mode, count), []).append(once)
    for (arm, mode, count), runs in taken.items():
        found: dict[str, object] = {"own": own[arm] == mode, "rounds": args.rounds, "threads": args.threads}
        for what in runs[0]:
            seconds = [run[what] for run in runs]
            found[what] = {
                "seconds": statistics.median(seconds),
                "to one task": quartiles(
                    [s / one[what] for s, one in zip(seconds, taken[arm, own[arm], 1], strict=True)]
                ),
                "to passes": quartiles(
                    [s / p[what] for s, p in zip(seconds, taken[arm, "passes", count], strict=True)]
                ),
            }
        save(f"times{'-kept-memory' * KEEPING}/{args.size}/batch{args.batch}/{arm}/{mode}/{count}", found)


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(v, 4) for v in statistics.quantiles(values, n=4, method="inclusive")]


def command_counts(args: argparse.Namespace) -> None:
    """MACs (matrix products and convolutions) of the trunk's passes and of all; bytes kept in training."""
    x = torch.rand(args.batch, 3, args.size, args.size)
    for arm in args.arms:
        model = build(arm)
        own = own_mode(model)
        for count in args.counts:
            for mode in MODES:
                tasks = list(model.tasks)[:count]
                model.eval()
                with torch.no_grad(), forced(model, mode), flop_counter() as counter:
                    model(x, tasks=tasks)
                flops = counter.get_flop_counts()
                model.train()
                with forced(model, mode):
                    kept = kept_for_backward(model, x, tasks)
                value = {
                    "own": own == mode,
                    "macs encoder": sum(flops["Model.backbone"].values()) // 2,
                    "macs all": counter.get_total_flops() // 2,
                    "bytes for backward": kept,
                }
                save(f"counts/{args.size}/batch{args.batch}/{arm}/{mode}/{count}", value)


def kept_for_backward(model: Model, x: Tensor, tasks: list[str] | None = None) -> int:
    """Bytes that a training forward pass keeps for the backward pass, parameters left out."""

    def forward() -> object:
        return sum(out.square().mean() for out in model(x, tasks=tasks).values())

    return bytes_for_backward(forward, model.parameters())


def command_forks(args: argparse.Namespace) -> None:
    """LoRA of four tasks from some block on, over four passes: residuals owner by owner, or for all rows at once."""
    x = torch.rand(args.batch, 3, args.size, args.size)
    for first in ((0, 0), (0, 1), (1, 0), (2, 0)):
        model = build(first, 4)
        watch, tasks, usual = Watch(model.backbone), list(model.tasks), context.APART_FROM
        ways = {"owner by owner": ("joint", usual), "at once": ("joint", 2**60), "passes": ("passes", usual)}
        taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for number in range(-1, args.rounds):
            for way in list(ways)[:: 1 if number % 2 else -1]:
                mode, context.APART_FROM = ways[way]
                once = time_once(model, watch, x, tasks, mode)
                if number >= 0:
                    taken[way].append(once)
        context.APART_FROM = usual
        found: dict[str, object] = {"rounds": args.rounds, "threads": args.threads}
        for way in ("owner by owner", "at once"):
            for clock in ("encoder wall", "encoder cpu"):
                both = zip(taken[way], taken["passes"], strict=True)
                found[f"{way}, {clock}"] = quartiles([one[clock] / other[clock] for one, other in both])
        save(f"forks/{args.size}/batch{args.batch}/stage {first[0]} block {first[1]}", found)


def command_side(args: argparse.Namespace) -> None:
    """Alternate training steps of side tuning and LoRA (r = 8, every linear layer of the blocks) on a ViT-S/14."""
    x = torch.rand(4, 3, 224, 224)
    target = torch.randint(0, 4, (4, 224, 224))
    models, optimizers = {}, {}
    for arm, method in (("side", gn.SideTuning()), ("lora", gn.LoRA(rank=8))):
        torch.manual_seed(0)
        trunk = gn.backbone("vit_small_patch14_dinov2", weights=None)
        models[arm] = gn.adapt(trunk, method, tasks={"seg": gn.Semantic(classes=4)}, head=gn.LinearHead()).train()
        optimizers[arm] = torch.optim.AdamW(models[arm].trained_parameters().values(), 1e-4)
    kept = {arm: kept_for_backward(model, x) for arm, model in models.items()}
    taken: dict[str, list[tuple[float, float]]] = {arm: [] for arm in models}
    for number in range(-2, args.rounds):
        for arm in list(models)[:: 1 if number % 2 else -1]:
            start = now()
            optimizers[arm].zero_grad()
            nn.functional.cross_entropy(models[arm](x)["seg"], target).backward()
            optimizers[arm].step()
            if number >= 0:
                taken[arm].append(tuple(after - before for before, after in zip(start, now(), strict=True)))
    found: dict[str, object] = {"rounds": args.rounds, "threads": args.threads, "bytes for backward": kept}
    found["bytes, side over LoRA"] = kept["side"] / kept["lora"]
    for clock, name in enumerate(("wall", "cpu")):
        rates = [lora[clock] / side[clock] for lora, side in zip(taken["lora"], taken["side"], strict=True)]
        found[f"step rate {name}, side over LoRA"] = quartiles(rates)
    save("side/vit_small_patch14_dinov2/224/batch4", found)


def command_table(args: argparse.Namespace) -> None:
    """Print what has been measured as Markdown."""
    found, where = read(), f"{args.size}/batch{args.batch}"
    clock = args.clock
    columns = " | ".join(f"T = {count}" for count in args.counts)
    rule = "| --- | --- |" + " ---: |" * len(args.counts)

    def rows(title: str, cell: Callable[[str], str | None], modes: tuple[str, ...] = ("own", "other")) -> None:
        print(f"\n{title}\n\n| arm | mode | {columns} |\n{rule}")
        for arm in args.arms:
            for mode in MODES:
                cells = [cell(f"{where}/{arm}/{mode}/{count}") for count in args.counts]
                if None in cells:
                    continue
                own = found[f"counts/{where}/{arm}/{mode}/1"]["own"]
                if ("own" if own else "other") in modes:
                    print(f"| {ARMS[arm]} | {mode}{' (own)' if own else ''} | {' | '.join(cells)} |")

    def ratio(what: str, to: str) -> Callable[[str], str | None]:
        def cell(key: str) -> str | None:
            value = found.get(f"times{'-kept-memory' * KEEPING}/{key}")
            if value is None:
                return None
            low, middle, high = value[f"{what} {clock}"][to]
            return f"{middle:.2f}" if low == high else f"{middle:.2f} ({low:.2f}–{high:.2f})"

        return cell

    def count(what: str, unit: float) -> Callable[[str], str | None]:
        def cell(key: str) -> str | None:
            value = found.get(f"counts/{key}")
            return None if value is None else f"{value[what] / unit:,.2f}"

        return cell

    rows("Encoder time over that of T = 1 of the same arm:", ratio("encoder", "to one task"))
    rows("Encoder time over that of T passes:", ratio("encoder", "to passes"))
    rows("End-to-end time over that of T = 1 of the same arm:", ratio("all", "to one task"), ("own",))
    rows("End-to-end time over that of T passes:", ratio("all", "to passes"), ("own",))
    rows("GMAC of the encoder:", count("macs encoder", 1e9), ("own",))
    rows("MB kept for backward by one training forward:", count("bytes for backward", 1e6))
    for key, value in found.items():
        if key.startswith(("side/", "forks/")):
            print(f"\n{key}: {json.dumps(value)}")


def command_plot(args: argparse.Namespace) -> None:
    """Encoder time, end-to-end time and bytes against T, each arm in the model's own mode."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found, where = read(), f"{args.size}/batch{args.batch}"
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    for arm in args.arms:
        style = {"marker": "o", "markersize": 3}
        timed = [own(found, f"times/{where}/{arm}", count) for count in args.counts]
        counted = [own(found, f"counts/{where}/{arm}", count) for count in args.counts]
        for panel, what in ((0, "encoder"), (1, "all")):
            seconds = [value[f"{what} {args.clock}"]["seconds"] for value in timed]
            panels[panel].plot(args.counts, seconds, label=ARMS[arm], **style)
        panels[2].plot(args.counts, [value["bytes for backward"] / 1e6 for value in counted], label=ARMS[arm], **style)
    for panel, title in zip(panels, ("encoder, s", "end to end, s", "kept for backward, MB"), strict=True):
        panel.set(title=title, xlabel="tasks", xscale="log", yscale="log")
        panel.set_xticks(args.counts, [str(count) for count in args.counts])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7, frameon=False)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=120)
    print(f"wrote {PLOT}")


def own(found: dict, key: str, count: int) -> dict:
    """The result of the mode that the model chooses."""
    return next(v for mode in MODES if (v := found[f"{key}/{mode}/{count}"])["own"])


def read() -> dict:
    """Everything measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(key: str, value: dict) -> None:
    """Add one result."""
    found = read()
    found[key] = value
    found["environment"] = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(key, json.dumps(value), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["counts", "times", "forks", "side", "table", "plot"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--arms", choices=list(ARMS), nargs="+", default=list(ARMS))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="cpu", help="of tables and plot")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    commands = {
        "counts": command_counts,
        "times": command_times,
        "forks": command_forks,
        "side": command_side,
        "table": command_table,
        "plot": command_plot,
    }
    commands[args.command](args)


if __name__ == "__main__":
    main()
