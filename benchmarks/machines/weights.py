"""A bundle beside a fully fine-tuned copy: bytes of files, bytes in memory, time until it can be used.

    OMP_NUM_THREADS=1 python benchmarks/machines/weights.py [--copies 6] [--bundles 30]

Both are bundles of garnish with linear heads of two tasks (21 classes, depth): one has LoRA (r = 8 on every linear
layer), the other trains the whole trunk (``FullFineTuning``), so that it shares nothing. Files and code of loading are
those of ``garnish serve``: sums, names, shapes and descriptions are checked. Files come out of the system's cache of
pages. Memory is what the store counts of their tensors; milliseconds are processor time of the thread and wall clock,
each median of so many loads. Results: benchmarks/machines/weights.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import garnish as gn
from garnish.model.model import Model
from garnish.serving.bundle_store import BundleStore
from garnish.serving.rare_collections import collect_rarely
from garnish.serving.torch_engine import TorchEngine

RESULTS = Path(__file__).with_name("weights.json")
TRUNKS = {"swin_t": "swin_tiny_patch4_window7_224", "vit_s": "vit_small_patch14_dinov2"}
METHODS = {"bundle": lambda: gn.LoRA(rank=8), "copy": gn.FullFineTuning}


def trunk(name: str) -> Any:
    """The same trunk each time."""
    torch.manual_seed(0)
    return gn.backbone(name, weights=None)


def write(folder: Path, name: str, kind: str, count: int) -> list[str]:
    """So many bundles of one kind; they differ in their names alone, which the store does not know."""
    tasks = {"seg": gn.Semantic(classes=21), "depth": gn.Depth(max_metres=10.0)}
    model = gn.adapt(trunk(name), METHODS[kind](), tasks, gn.LinearHead())
    names = [f"{kind}{number:03d}" for number in range(count)]
    gn.save(model, folder / names[0])
    for other in names[1:]:
        shutil.copytree(folder / names[0], folder / other)
    return names


def load_all(folder: Path, trunk_name: str, names: list[str]) -> dict[str, Any]:
    """Of loading each once into one process: bytes and milliseconds."""
    engine = TorchEngine(Model(trunk(trunk_name)))
    engine.model.backbone.fingerprint(anew=False)  # a server has it before the first request
    store = BundleStore(engine, memory=2**40, root=folder)
    with store.using(names[:1]):
        pass  # torch starts up
    wall, cpu = [], []
    for name in names[1:]:
        began, spent = time.perf_counter(), time.thread_time()
        with store.using([name]):
            pass
        wall.append(time.perf_counter() - began)
        cpu.append(time.thread_time() - spent)
    return {
        "files_bytes": sum(file.stat().st_size for file in (folder / names[0]).iterdir()),
        "memory_bytes": store.counts().nbytes // len(names),
        "wall_ms": round(1e3 * statistics.median(wall), 2),
        "cpu_ms": round(1e3 * statistics.median(cpu), 2),
        "loads": len(wall),
    }


def measure(copies: int, bundles: int) -> dict[str, Any]:
    """Both kinds on both trunks."""
    found: dict[str, Any] = {}
    for short, name in TRUNKS.items():
        tensors = trunk(name).state_dict().values()
        found[short] = {"trunk": name, "trunk_bytes": sum(t.numel() * t.element_size() for t in tensors)}
        for kind, count in (("bundle", bundles), ("copy", copies)):
            with tempfile.TemporaryDirectory() as folder:
                names = write(Path(folder), name, kind, count + 1)
                found[short][kind] = load_all(Path(folder), name, names)
    return found


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--bundles", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    collect_rarely()  # as garnish serve
    load = [os.getloadavg()[0]]
    found = measure(given.copies, given.bundles)
    load.append(os.getloadavg()[0])
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "torch": torch.__version__, "load": load}
    RESULTS.write_text(json.dumps({**machine, "trunks": found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
