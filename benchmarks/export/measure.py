"""Seconds and bytes of an exported graph beside torch: eager, merged eager, ONNX float32 and eight bits.

python benchmarks/export/measure.py [--rounds 9] [--threads 2] [--only vit]

Three trunks of real width with random weights, LoRA of rank 8 and SegFormer's head for two tasks, one picture a run.
The ways take turns within a round, so that whatever else the machine does meets all of them; told are the smallest and
the middle time over the rounds, and the memory that a process of its own takes to open a graph and run it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import garnish as gn
from garnish.exporting.deployed import folded_copy, plain_copy
from garnish.model.model import Model

RESULTS = Path(__file__).parent / "results.json"
#: label → name of the trunk, side of the picture
TRUNKS = {
    "mit": ("mit_b0", 512),
    "vit": ("vit_small_patch14_dinov2", 518),
    "swin": ("swin_tiny_patch4_window7_224", 512),
}


def made(name: str) -> Model:
    torch.manual_seed(0)
    tasks = {"seg": gn.Semantic(classes=19), "depth": gn.Depth()}
    model = gn.adapt(gn.backbone(name), gn.LoRA(rank=8), tasks, gn.SegFormerHead(channels=64))
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model.eval()


def session(folder: Path, threads: int) -> Callable[[torch.Tensor], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    run = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda images: run.run(None, {"image": images.numpy()})


def torch_way(model: Model) -> Callable[[torch.Tensor], object]:
    def run(images: torch.Tensor) -> object:
        with torch.inference_mode():
            return model(images)

    return run


def grown(folder: Path, threads: int) -> float:
    """MB that a process without torch grows by when it opens a graph and runs one picture."""
    code = (
        "import onnxruntime, numpy, sys; o = onnxruntime.SessionOptions(); o.intra_op_num_threads = int(sys.argv[2])\n"
        "held = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        "before = held()\n"
        "run = onnxruntime.InferenceSession(sys.argv[1], o, providers=['CPUExecutionProvider'])\n"
        "run.run(None, {'image': numpy.zeros((1, 3, 224, 224), numpy.uint8)})\n"
        "print(held() - before)"
    )
    words = [sys.executable, "-c", code, str(folder / "model.onnx"), str(threads)]
    told = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ).stdout
    return float(told)


def measured(label: str, precisions: list[str], rounds: int, threads: int) -> dict[str, object]:
    name, side = TRUNKS[label]
    model = made(name)
    reference = plain_copy(model)
    ways: dict[str, Callable[[torch.Tensor], object]] = {
        "eager": torch_way(reference),
        "merged eager": torch_way(folded_copy(reference, tuple(reference.tasks))),
    }
    found: dict[str, dict[str, object]] = {way: {} for way in ways}
    with tempfile.TemporaryDirectory() as temporary:
        for precision in precisions:
            out, way, started = Path(temporary) / precision, f"ONNX {precision}", time.perf_counter()
            exported = gn.export(model, out, precision=precision)
            agreed = exported.certificate["tasks"]["seg"]
            found[way] = {
                "bytes": exported.bytes,
                "export_seconds": time.perf_counter() - started,
                "relative": agreed["relative"],
                "equal_labels": agreed["equal_labels"],
                "grown_mb": grown(out, threads),
            }
            ways[way] = session(out, threads)
        images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, run in ways.items():
                started = time.perf_counter()
                run(images)
                if number:
                    times[way].append(time.perf_counter() - started)
    for way, seconds in times.items():
        found[way] |= {"seconds_min": min(seconds), "seconds_median": statistics.median(seconds)}
    return {"trunk": name, "side": side, "ways": found}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=TRUNKS)
    parser.add_argument("--precisions", default="fp32,int8", help="fp32,fp16,int8; fp16 runs as fp32 does")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"trunks": {}}
    known |= {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    known |= {"rounds": given.rounds, "threads": given.threads}
    for label in [given.only] if given.only else TRUNKS:
        known["trunks"][label] = measured(label, given.precisions.split(","), given.rounds, given.threads)
        RESULTS.write_text(json.dumps(known, indent=2) + "\n")
        print(json.dumps({label: known["trunks"][label]}, indent=2), flush=True)


if __name__ == "__main__":
    main()
