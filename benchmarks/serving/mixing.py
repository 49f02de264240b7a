"""N pictures that want N bundles, against N pictures of one bundle; each arm at its best batch, heads included.

    OMP_NUM_THREADS=1 python benchmarks/serving/mixing.py
    OMP_NUM_THREADS=1 python benchmarks/serving/mixing.py --trunks ViT-S --methods LoRA --heads LinearHead --rounds 7
    OMP_NUM_THREADS=1 python benchmarks/serving/mixing.py table

A model holds 64 bundles: for each an adapter of its own and a head of 21 classes, all moved off their start. An arm
takes its N pictures in passes of b; b is searched for each arm by itself. Then arms run in turn, a few passes each and
every other time in the opposite order, since a machine that others use is faster at one second than at the next; the
ratio is pictures a second of the mixed arm over those of the other, within a round of N pictures. Processor time of one
thread, no HTTP, trunks with random weights. ``apart`` is the largest difference of a row of a mixed batch
of 16 from the row alone, over the largest number of the row. Results are merged by case into
benchmarks/serving/results_mixing.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import garnish as gn
from garnish.model.model import Model

RESULTS = Path(__file__).with_name("results_mixing.json")
#: name → (trunk, side of its pictures)
TRUNKS = {
    "ViT-Ti": ("vit_tiny_patch16_224", 224),
    "ViT-S": ("vit_small_patch16_224", 224),
    "MiT-B0": ("mit_b0", 256),
}
METHODS = {"LoRA": gn.LoRA(rank=8), "AdaptFormer": gn.AdaptFormer()}
HEADS = {"LinearHead": gn.LinearHead(), "SegFormerHead": gn.SegFormerHead()}
CLASSES = 21
#: N → the ratio that is asked for.
ASKED = {16: 0.9, 64: 0.8}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
ARMS = ("one", "many")


def model_of(trunk: str, method: str, head: str) -> Model:
    """64 bundles of one task each."""
    torch.manual_seed(0)
    model = Model(gn.backbone(TRUNKS[trunk][0], weights=None)).eval()
    for number in range(max(ASKED)):
        model.add(METHODS[method], {f"t{number:02d}": gn.Semantic(classes=CLASSES)}, HEADS[head])
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def wanted_by(arm: str, count: int) -> list[list[str]]:
    """The tasks of each picture."""
    return [[f"t{number if arm == 'many' else 0:02d}"] for number in range(count)]


def spent(model: Model, x: torch.Tensor, arm: str, span: tuple[int, int], batch: int) -> float:
    """Processor seconds of the pictures of a span (first, end) in passes of ``batch``."""
    wanted = wanted_by(arm, len(x))
    began = time.process_time()
    with torch.inference_mode():
        for start in range(*span, batch):
            model(x[start : start + batch], wanted[start : start + batch])
    return time.process_time() - began


def one_round(model: Model, x: torch.Tensor, count: int, batch: dict[str, int], number: int) -> dict[str, float]:
    """Arm → processor seconds of ``count`` pictures; arms take turns of as many pictures as the larger batch."""
    found, turn = dict.fromkeys(ARMS, 0.0), max(batch.values())
    for start in range(0, count, turn):
        number += 1
        for arm in ARMS[:: 1 if number % 2 else -1]:
            found[arm] += spent(model, x, arm, (start, start + turn), batch[arm])
    return found


def best_batches(model: Model, x: torch.Tensor, batches: Sequence[int], tries: int) -> dict[str, dict[int, float]]:
    """Arm → batch → the least processor seconds a picture."""
    found: dict[str, dict[int, float]] = {arm: {} for arm in ARMS}
    for turn in range(tries):
        for batch in batches[:: 1 if turn % 2 else -1]:
            for arm in ARMS[:: 1 if turn % 2 else -1]:
                count = max(batch, 8)
                each = spent(model, x, arm, (0, count), batch) / count
                found[arm][batch] = min(each, found[arm].get(batch, each))
    return found


def apart(model: Model, x: torch.Tensor, count: int = 16) -> float:
    """The largest difference of a row of a mixed batch from the row alone, over the largest number of the row."""
    wanted, most = wanted_by("many", count), 0.0
    with torch.inference_mode():
        together = model(x[:count], wanted)
        for number, (task,) in enumerate(wanted):
            alone = model(x[number : number + 1], [task])[task]
            most = max(most, float((together[task] - alone).abs().max() / alone.abs().max()))
    return most


def measure(trunk: str, method: str, head: str, rounds: int, batches: Sequence[int], tries: int) -> dict[str, Any]:
    """Of one case: the search, and for each N the ratio of each round."""
    model, side = model_of(trunk, method, head), TRUNKS[trunk][1]
    x = torch.rand(max(ASKED), 3, side, side, generator=torch.Generator().manual_seed(1))
    found: dict[str, Any] = {"apart": apart(model, x)}  # which warms up as well
    searched = best_batches(model, x, batches, tries)
    found["ms_by_batch"] = {arm: {b: round(s * 1000, 2) for b, s in one.items()} for arm, one in searched.items()}
    for count in ASKED:
        batch = {arm: min((b for b in batches if b <= count), key=searched[arm].__getitem__) for arm in ARMS}
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for number in range(rounds):
            for arm, taken in one_round(model, x, count, batch, number).items():
                seconds[arm].append(taken)
        ratios = sorted(one / many for one, many in zip(seconds["one"], seconds["many"], strict=True))
        found[str(count)] = {
            "batch": batch,
            "ms": {arm: round(statistics.median(taken) / count * 1000, 2) for arm, taken in seconds.items()},
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| trunk | method | head | N | batch, one | batch, many | ms a picture, one | many | ratio | asked | apart |"
    ]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for key, case in found["cases"].items():
        for count, asked in ASKED.items():
            one = case[str(count)]
            low, high = one["ratios"][0], one["ratios"][-1]
            cells = [*key.split("/"), count, one["batch"]["one"], one["batch"]["many"], one["ms"]["one"]]
            cells += [one["ms"]["many"], f"{one['ratio']:.2f} ({low:.2f} to {high:.2f})", asked, f"{case['apart']:.1e}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure cases, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "table"), default="measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tries", type=int, default=2, help="of each batch in the search")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), help="that are searched")
    parser.add_argument("--trunks", nargs="+", choices=list(TRUNKS), default=list(TRUNKS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "table":
        print(table(json.loads(options.out.read_text())))
        return
    torch.set_num_threads(1)
    for trunk in options.trunks:
        for method in options.methods:
            for head in options.heads:
                case = measure(trunk, method, head, options.rounds, options.batches, options.tries)
                found = json.loads(options.out.read_text()) if options.out.exists() else {"cases": {}}
                found |= {"torch": torch.__version__, "threads": 1}
                found["cases"][f"{trunk}/{method}/{head}"] = case
                options.out.write_text(json.dumps(found, indent=1) + "\n")
                print(trunk, method, head, json.dumps(case), flush=True)


if __name__ == "__main__":
    main()
