"""A thousand bundles on one trunk in one process: memory, cold and resident use, and traffic at bounds of memory.

    OMP_NUM_THREADS=1 python benchmarks/serving/fleet.py [--bundles 1000] [--requests 300] [--folder DIR]
    OMP_NUM_THREADS=1 python benchmarks/serving/fleet.py table

Each bundle is a LoRA (r = 8) with linear heads of two tasks, ``seg`` of 21 classes and ``depth``, on a ViT-S/14 with
random weights; one is saved, and each of the others is that one with other numbers, as a folder of its own. They are
kept in DIR, if it is given.

- cold: from asking the store for a bundle that is not in memory until it can be used: its files read, sums, names,
  shapes and description checked, tensors filled. The files come out of the system's cache of pages, or (``disk``) are
  read anew after the system was told to forget them. ``dropping``: beside, another one leaves memory.
- resident: the same for one that is in memory, beside 999 others.
- memory: of the process, before the first bundle and with all of them.
- traffic: requests of one picture (224 x 224) of one bundle each, uniform or by Zipf's law (s = 1), one after the
  other, each with its pass, after the store was filled by as many requests as it has bundles. ``ms`` is a request.

Wall clock, and processor time of the process, for the former depends on what else runs; ``load`` is what else ran.
Results: benchmarks/serving/results_fleet.json.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

import garnish as gn
from garnish.files.checksums import with_sums
from garnish.model.model import Model
from garnish.serving.bundle_store import BundleStore
from garnish.serving.engine import Row
from garnish.serving.rare_collections import collect_rarely
from garnish.serving.torch_engine import TorchEngine

RESULTS = Path(__file__).with_name("results_fleet.json")
TRUNK, SIDE = "vit_small_patch14_dinov2", 224
BOUNDS = (50, 200, 1000)
CALLS = 10_000


def trunk() -> Any:
    """The trunk of all bundles."""
    torch.manual_seed(0)
    return gn.backbone(TRUNK, weights=None)


def make_bundles(folder: Path, count: int) -> list[str]:
    """Folders of bundles that differ in their numbers alone; those that are there stay."""
    names = [f"b{number:04d}" for number in range(count)]
    if (folder / names[-1] / "bundle.json").exists():
        return names
    tasks = {"seg": gn.Semantic(classes=21), "depth": gn.Depth(max_metres=10.0)}
    model = gn.adapt(trunk(), gn.LoRA(rank=8), tasks, gn.LinearHead())
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    gn.save(model, folder / names[0])
    tensors = load_file(folder / names[0] / "weights.safetensors")
    facts = json.loads((folder / names[0] / "bundle.json").read_text())
    for name in names[1:]:
        weights = to_bytes({key: t * (1 + 0.1 * torch.randn(1).item()) for key, t in tensors.items()})
        facts["sha256"] = hashlib.sha256(weights).hexdigest()
        text = json.dumps(facts, sort_keys=True, indent=2).encode()
        (folder / name).mkdir(exist_ok=True)
        for file, data in with_sums({"weights.safetensors": weights, "bundle.json": text}).items():
            (folder / name / file).write_bytes(data)
    return names


def in_memory() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50": round(1e3 * statistics.median(ordered), 3),
        "p99": round(1e3 * ordered[int(0.99 * (len(ordered) - 1))], 3),
    }


def timed(calls: list[Callable[[], object]]) -> dict[str, Any]:
    """Of each call on its own: wall clock, and processor time of this thread."""
    wall, cpu = [], []
    for call in calls:
        began, spent = time.perf_counter(), time.thread_time()
        call()
        wall.append(time.perf_counter() - began)
        cpu.append(time.thread_time() - spent)
    return {"ms": quantiles(wall), "cpu_ms": quantiles(cpu), "count": len(wall)}


def forget(folder: Path) -> None:
    """Have the system read a folder's files from the disk next time."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def use(store: BundleStore, name: str) -> None:
    """Ask for a bundle and let it go."""
    with store.using([name]):
        pass


def new_store(folder: Path, names: list[str], memory: int) -> tuple[TorchEngine, BundleStore]:
    """A store that knows all bundles and has none in memory."""
    engine = TorchEngine(Model(trunk()))
    engine.model.backbone.fingerprint(anew=False)  # a server has it before the first request
    store = BundleStore(engine, memory=memory, root=folder)
    assert set(names) <= set(store.names())
    return engine, store


def drawn(kind: str, count: int, seed: int) -> Iterator[int]:
    """Numbers of bundles, for ever."""
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, count + 1) if kind == "zipf" else np.ones(count)
    order = generator.permutation(count)
    while True:
        yield from order[generator.choice(count, 1000, p=weights / weights.sum())].tolist()


def traffic(folder: Path, names: list[str], kind: str, bound: int, each: int, requests: int) -> dict[str, Any]:
    """Requests at a bound of memory that holds so many bundles."""
    engine, store = new_store(folder, names, bound * each)
    picture = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8)
    numbers = drawn(kind, len(names), 0)
    for number in range(min(bound, len(names))) if bound >= len(names) else ():
        use(store, names[number])
    for _ in range(0 if bound >= len(names) else 2 * bound):
        use(store, names[next(numbers)])
    before, wall, cpu = store.counts(), [], []
    for _ in range(requests):
        began, spent = time.perf_counter(), time.thread_time()
        with store.using([names[next(numbers)]]) as (loaded,):
            (outcome,) = engine.run([Row(picture, ((loaded, ("seg", "depth")),))])
        assert isinstance(outcome, dict)
        wall.append(time.perf_counter() - began)
        cpu.append(time.thread_time() - spent)
    after = store.counts()
    return {
        "hits": round((after.hits - before.hits) / requests, 3),
        "ms": quantiles(wall),
        "cpu_ms": quantiles(cpu),
        "requests_per_second": round(requests / sum(wall), 2),
        "requests_per_cpu_second": round(requests / sum(cpu), 2),
        "loads_ms": round(1e3 * (after.load_seconds_total - before.load_seconds_total) / requests, 2),
    }


def all_in_memory(folder: Path, names: list[str]) -> dict[str, Any]:
    """Reading all bundles, what they take, and using them."""
    _, store = new_store(folder, names, 2**40)
    use(store, names[0])  # torch starts up
    collect_rarely()  # as garnish serve
    before, count = in_memory(), len(names)
    cold = timed([partial(use, store, name) for name in names[1:]])
    after = in_memory()
    draw = drawn("uniform", count, 1)
    return {
        "memory": {
            "trunk_and_program": before,
            "all": after,
            "a_bundle": (after - before) // (count - 1),
            "a_bundle_by_its_tensors": store.counts().nbytes // count,
        },
        "cold": cold,
        "resident": timed([partial(use, store, names[next(draw)]) for _ in range(CALLS)]),
    }


def dropping(folder: Path, names: list[str], each: int) -> dict[str, Any]:
    """Reading bundles where each has another one dropped."""
    room = min(50, len(names) // 2)
    _, store = new_store(folder, names, room * each)
    for name in names[:room]:
        use(store, name)
    return timed([partial(use, store, name) for name in names[room : room + 300]])


def from_disk(folder: Path, names: list[str]) -> dict[str, Any]:
    """Reading bundles that are in no cache of the system."""
    _, store = new_store(folder, names, 2**40)
    use(store, names[0])
    for name in names[1:301]:
        forget(folder / name)
    return timed([partial(use, store, name) for name in names[1:301]])


def measure(folder: Path, count: int, requests: int) -> dict[str, Any]:
    """All of it."""
    names = make_bundles(folder, count)
    found: dict[str, Any] = {
        "bundles": count,
        "files_bytes": sum(file.stat().st_size for file in (folder / names[0]).iterdir()),
        **all_in_memory(folder, names),
    }
    each = found["memory"]["a_bundle_by_its_tensors"]
    gc.collect()
    found["dropping"] = dropping(folder, names, each)
    found["disk"] = from_disk(folder, names)
    found["traffic"] = {
        kind: {str(bound): traffic(folder, names, kind, bound, each, requests) for bound in BOUNDS}
        for kind in ("uniform", "zipf")
    }
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| | ms, p50 | p99 | processor ms, p50 | p99 |", "| --- | ---: | ---: | ---: | ---: |"]
    for what in ("cold", "disk", "dropping", "resident"):
        one = found[what]
        numbers = [one["ms"]["p50"], one["ms"]["p99"], one["cpu_ms"]["p50"], one["cpu_ms"]["p99"]]
        lines.append(f"| {what} | {' | '.join(f'{n:.3g}' for n in numbers)} |")
    lines += ["", "| traffic | room for | hits | ms, p50 | p99 | requests a second | a processor second |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, bounds in found["traffic"].items():
        for bound, one in bounds.items():
            cells = [kind, bound, f"{one['hits']:.2f}", f"{one['ms']['p50']:.0f}", f"{one['ms']['p99']:.0f}"]
            cells += [one["requests_per_second"], one["requests_per_cpu_second"]]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "table"), default="measure")
    parser.add_argument("--bundles", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where bundles are kept; a temporary folder otherwise")
    given = parser.parse_args()
    if given.what == "measure":
        torch.set_num_threads(1)
        if given.folder is not None:
            given.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() if given.folder is None else nullcontext(given.folder) as folder:
            load = [os.getloadavg()[0]]
            found = measure(Path(folder), given.bundles, given.requests)
        load.append(os.getloadavg()[0])
        machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "torch": torch.__version__, "load": load}
        RESULTS.write_text(json.dumps({**machine, **found}, indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
