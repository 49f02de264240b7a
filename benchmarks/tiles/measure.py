"""Windows of a large picture: memory, speed, and the difference to one pass at seams and elsewhere.

    python benchmarks/tiles/measure.py [--side 10000] [--threads 1] [--part streamed|speed|seams]

A MiT-B0 (the bundled weights, LoRA of rank 8) with SegFormer's decoder (32 channels, as in the demo) and five tasks:
segmentation into 21 classes, parts into 7, depth, normals, edges; heads and adapters are drawn from one seed.

- streamed: ``garnish predict``'s own function reads a tiled TIFF of side x side from the disk and writes five tiled
  TIFFs, in a process of its own. Memory is the highest resident size of the process (VmHWM), less that after importing
  garnish and building the model.
- speed: the same, for the first rows of windows, with a whole pass of 1024 x 1024, decoded, before two windows of each
  row: pixels of finished rows per second of the processor, files included and these passes left out, over pixels per
  second of the median of these. In turn, since other processes on a machine slow passes of torch most.
- seams: a picture of 2048 x 2048 whole and in windows of 1024. Differences are means of absolute differences over
  pixels within bands where windows are blended, and over the others: of segmentation the share of other ids, of the
  others the values. Pictures are procedural scenes of garnish, side by side.

Each part is a process; results go to benchmarks/tiles/results.json as they come.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
TILE, OVERLAP = 1024, 96


def status(name: str) -> float:
    """MB of a line of the process's status: VmRSS, VmHWM."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(name))
    return int(line.split()[1]) / 1e3


def built() -> Any:
    import torch

    import garnish as gn

    torch.manual_seed(0)
    tasks = {
        "seg": gn.Semantic(classes=21),
        "parts": gn.Semantic(classes=7),
        "depth": gn.Depth(max_metres=10.0),
        "normals": gn.Normals(),
        "edges": gn.Edges(),
    }
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=8), tasks, gn.SegFormerHead(channels=32)).eval()
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def scene_tiles(count: int) -> Any:
    """Some procedural scenes of 512 x 512, each (3, 512, 512) uint8."""
    import numpy as np

    import garnish as gn

    scenes = gn.Scenes(count, seed=7, size=(512, 512))
    return [np.asarray(scenes[i].image) for i in range(count)]


def picture(side: int) -> Any:
    """Scenes side by side, (side, side, 3) uint8."""
    import numpy as np

    held = scene_tiles(9)
    whole = np.empty((side, side, 3), np.uint8)
    for number, (top, left) in enumerate((t, s) for t in range(0, side, 512) for s in range(0, side, 512)):
        part = held[(number * 5 + top // 512) % len(held)].transpose(1, 2, 0)
        whole[top : top + 512, left : left + 512] = part[: side - top, : side - left]
    return whole


def write_tiff(side: int, file: Path) -> None:
    import tifffile

    tifffile.imwrite(file, picture(side), tile=(256, 256), photometric="rgb", compression="deflate")


def whole_pass(model: Any, pixels: Any) -> float:
    """Processor seconds of one whole pass with decoding."""
    start = time.process_time()
    model.predict(pixels, tile=None)
    return time.process_time() - start


def streamed(side: int, file: Path) -> dict[str, Any]:
    """Memory and speed of one picture, in this process."""
    from garnish.model.streamed import predict_streamed
    from garnish.tiles.tiling import Tiling

    model = built()
    gc.collect()
    base = status("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        start, clock = time.process_time(), time.perf_counter()
        tiling = Tiling(tile=TILE, overlap=OVERLAP)
        found = predict_streamed(model, file, Path(folder, "map"), None, tiling, print)
        seconds, clock = time.process_time() - start, time.perf_counter() - clock
        bytes_written = {task: path.stat().st_size for task, path in found.items()}
    peak = status("VmHWM")
    return {
        "side": side,
        "above_import_and_trunk_mb": round(peak - base),
        "peak_mb": round(peak),
        "before_mb": round(base),
        "processor_seconds": round(seconds, 1),
        "clock_seconds": round(clock, 1),
        "files_bytes": bytes_written,
        "load": os.getloadavg(),
    }


class Enough(Exception):
    """The rows that are measured are finished."""


def speed(side: int, file: Path, rows: int) -> dict[str, Any]:
    """Speed of the first rows of windows of one picture, with whole passes in turn."""
    from garnish.model import streamed as module
    from garnish.tiles.tiling import Tiling

    model, patch, passes, count = built(), picture(1024), [], 0
    tiling = Tiling(tile=TILE, overlap=OVERLAP)
    plan = tiling.plan((side, side), model.backbone.multiple)
    make = module.window_runner
    whole_pass(model, patch)

    def in_turn(*given: Any) -> Any:
        run = make(*given)

        def timed(pixels: Any) -> Any:
            nonlocal count
            if count == rows * len(plan.columns):
                raise Enough
            if count % len(plan.columns) == 0 or count % len(plan.columns) == 5:
                passes.append(whole_pass(model, patch))
            count += 1
            return run(pixels)

        return timed

    module.window_runner = in_turn
    start = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as folder:
            module.predict_streamed(model, file, Path(folder, "map"), None, tiling, print)
    except Enough:
        seconds = time.process_time() - start - sum(passes)
    done = plan.rows[rows - 1].shared * side
    whole = 1024 * 1024 / statistics.median(passes)
    return {
        "rows_of_windows": rows,
        "finished_pixels": done,
        "processor_seconds": round(seconds, 1),
        "whole_pass_seconds": [round(s, 3) for s in passes],
        "pixels_per_second": round(done / seconds),
        "pixels_per_second_of_a_whole_pass": round(whole),
        "ratio": round(done / seconds / whole, 3),
        "load": os.getloadavg(),
    }


def seams(side: int = 2048) -> dict[str, Any]:
    """Differences of windows to the whole pass."""
    import numpy as np

    from garnish.tiles.tiling import Tiling

    model, pixels = built(), picture(side)
    plan = Tiling(tile=TILE, overlap=OVERLAP).plan((side, side), model.backbone.multiple)
    band = np.zeros((side, side), bool)
    for row in plan.rows:
        band[row.shared : row.end] = True
    for column in plan.columns:
        band[:, column.shared : column.end] = True
    start = time.perf_counter()
    whole = model.predict(pixels, tile=None)
    seconds = time.perf_counter() - start
    peak = status("VmHWM")
    cut = model.predict(pixels, tile=TILE, overlap=OVERLAP)
    found: dict[str, Any] = {"plan": str(plan), "whole_seconds": round(seconds, 1), "whole_peak_mb": round(peak)}
    for task in model.tasks:
        a, b = whole[task].numpy(), cut[task].numpy()
        off = (a != b).astype(float) if a.dtype == np.uint8 else np.abs(a.astype(float) - b)
        off = off.mean(0) if off.ndim == 3 else off
        at, elsewhere = float(off[band].mean()), float(off[~band].mean())
        ratio = round(at / elsewhere, 3) if elsewhere else None
        found[task] = {"at_seams": round(at, 6), "elsewhere": round(elsewhere, 6), "ratio": ratio}
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--side", type=int, default=10000)
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--part", choices=("streamed", "speed", "seams"), help="one part, in this process")
    words.add_argument("--file", type=Path)
    words.add_argument("--write", action="store_true", help="write the picture to --file and end")
    given = words.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(given.threads), "MKL_NUM_THREADS": str(given.threads)}
    if given.write:
        write_tiff(given.side, given.file)
        return
    if given.part:
        import torch

        torch.set_num_threads(given.threads)
        parts = {"streamed": lambda: streamed(given.side, given.file), "seams": seams}
        parts["speed"] = lambda: speed(given.side, given.file, rows=min(3, given.side // TILE))
        found = parts[given.part]()
        print(json.dumps(found))
        return
    results = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, {given.threads} thread(s)"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "large.tif")
        own = [
            sys.executable,
            __file__,
            "--threads",
            str(given.threads),
            "--side",
            str(given.side),
            "--file",
            str(file),
        ]
        for part in ("seams", "streamed", "speed"):
            if part == "streamed":
                subprocess.run([*own, "--write"], check=True)
            done = subprocess.run([*own, "--part", part], check=True, stdout=subprocess.PIPE, text=True)
            results[part] = json.loads(done.stdout.splitlines()[-1])
            print(part, json.dumps(results[part], indent=2), flush=True)
            RESULTS.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
