"""Bundles beside one graph: what a second one costs, and what changing between them does.

    OMP_NUM_THREADS=1 python benchmarks/export/switch.py

``garnish_b0`` with LoRA (r = 8) and two linear heads is exported with adapters as inputs; its bundle is copied to many
names. Told: bytes of the files; the time until a bundle that was never asked for is ready (its two files read, digests,
names and shapes checked, tensors mapped), p50 and p99; the resident memory that each kept one adds; and passes of one
picture in turn with the same bundle and with another one each time, p50, p99 and the median of the ratios within a
pair. Wall clock and processor time, for the former depends on what else runs. Results: benchmarks/export/switch.json.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import garnish as gn
from garnish.runtime import Session

RESULTS = Path(__file__).with_name("switch.json")
COPIES, PASSES, SIZE = 300, 300, (224, 224)


def exported(folder: Path) -> None:
    """A graph and one bundle, "bundle0", moved off the identity, and copies of it under other names."""
    torch.manual_seed(0)
    tasks = {"seg": gn.Semantic(classes=21), "depth": gn.Depth(max_metres=10.0)}
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=8), tasks, gn.LinearHead())
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    gn.export(model.eval(), folder, adapters="inputs")
    for number in range(COPIES):
        for ending in (".json", ".onnx_adapter"):
            shutil.copyfile(folder / f"model{ending}", folder / f"bundle{number}{ending}")


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {"p50": 1e3 * statistics.median(ordered), "p99": 1e3 * ordered[int(0.99 * (len(ordered) - 1))]}


def measure(folder: Path) -> dict[str, Any]:
    """Everything about a folder of :func:`exported`."""
    session = Session(folder, threads=1)
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, *SIZE), dtype=np.uint8)
    session.outputs(picture, "model")
    before, wall, spent = resident(), [], []
    for number in range(COPIES):
        start, began = time.perf_counter(), time.process_time()
        session.tasks(f"bundle{number}")
        wall.append(time.perf_counter() - start)
        spent.append(time.process_time() - began)
    memory = (resident() - before) / COPIES
    passes: dict[str, list[float]] = {"same": [], "another": []}
    for number in range(PASSES):
        for way in ("same", "another") if number % 2 else ("another", "same"):
            name = "bundle0" if way == "same" else f"bundle{1 + number % (COPIES - 1)}"
            if way == "same":
                session.outputs(picture, name)
            began = time.process_time()
            session.outputs(picture, name)
            passes[way].append(time.process_time() - began)
    ratios = [another / same for another, same in zip(passes["another"], passes["same"], strict=True)]
    return {
        "bytes": {name: (folder / name).stat().st_size for name in ("model.onnx", "model.onnx_adapter", "model.json")},
        "first load, wall": quantiles(wall),
        "first load, processor": quantiles(spent),
        "resident bytes a bundle": round(memory),
        "pass, same bundle": quantiles(passes["same"]),
        "pass, another bundle": quantiles(passes["another"]),
        "another over same": [round(q, 3) for q in statistics.quantiles(ratios, n=4)],
        "load": os.getloadavg()[0],
        "bundles": COPIES,
        "passes": PASSES,
    }


def main() -> None:
    """Measure, print and keep."""
    with tempfile.TemporaryDirectory() as folder:
        exported(Path(folder))
        found = measure(Path(folder))
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
