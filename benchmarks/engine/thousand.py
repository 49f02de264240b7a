"""The thousandth LoRA bundle on a ViT-S beside the first: time to add it, to load it from a bundle, and to remove it.

    python benchmarks/engine/thousand.py [--limit 1000]

Medians of nine calls in processor time, without the collector of garbage, one thread; random weights.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable

import torch

import garnish as gn
from garnish.model import Model


def fresh() -> Model:
    torch.manual_seed(0)
    return gn.adapt(gn.backbone("vit_small_patch16_224"), gn.Frozen(), {"first": gn.Saliency()}).eval()


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def three(model: Model, bundle: str) -> list[float]:
    """Milliseconds to add, load and remove one more."""
    found = []
    for number in range(10):
        name = f"more{number}"
        add = seconds(lambda name=name: model.add(gn.LoRA(rank=8), {name: gn.Semantic(classes=2)}))
        model.remove([name])
        load = seconds(lambda: model.load(bundle))
        found.append((add, load, seconds(lambda: model.remove(["loaded"]))))
    return [1e3 * statistics.median(column) for column in zip(*found[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1000)
    limit = parser.parse_args().limit
    torch.set_num_threads(1)
    gc.disable()
    other, model = fresh(), fresh()
    other.add(gn.LoRA(rank=8), {"loaded": gn.Semantic(classes=2)})
    with tempfile.TemporaryDirectory() as place:
        bundle = str(other.save(f"{place}/bundle", tasks=["loaded"]))
        first = three(model, bundle)
        for number in range(limit - 1):
            model.add(gn.LoRA(rank=8), {f"t{number}": gn.Semantic(classes=2)})
        last = three(model, bundle)
    for what, one, many in zip(("add", "load", "remove"), first, last, strict=True):
        print(f"{what}: {one:.1f} ms beside none, {many:.1f} ms beside {limit - 1}: {many / one:.2f}", flush=True)


if __name__ == "__main__":
    main()
