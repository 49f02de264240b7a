"""What a cluster adds to predicting pictures: ``garnish predict`` against ``garnish predict --on ray``, on one machine.

    python benchmarks/machines/bulk.py [--pictures 2000] [--rounds 1]

Small pictures (64×64, noise), ``garnish_b0`` with LoRA and two tasks, maps and sheets. Both arms are commands of their
own, in turn, and write the same files, which are compared. Told apart are the seconds of the whole command, those until
Ray's cluster stood, those until the first block was done (workers import torch and open the bundle meanwhile), and the
rest, which is what the engine adds to each picture. Processor seconds are of the command with all that it started.
Prints the load as well; kept in benchmarks/machines/bulk.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import garnish as gn

RESULTS = Path(__file__).with_name("bulk.json")
SIDE = 64
#: Runs predict as the command does, and prints the seconds that :class:`BulkDone` knows.
TIMED = """
import json, sys
from garnish.cluster import bulk
from garnish.cli import main
whole = bulk.predict_on
def timed(*words):
    done = whole(*words)
    print("seconds", json.dumps(done.seconds), file=sys.stderr)
    return done
bulk.predict_on = timed
sys.exit(main(sys.argv[1:]))
"""


def make(place: Path, count: int) -> None:
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:05d}.png")


def save_bundle(folder: Path) -> None:
    torch.manual_seed(0)
    tasks = {"seg": gn.Semantic(classes=["sky", "road", "car"]), "depth": gn.Depth(max_metres=9.0)}
    gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=1), tasks).save(folder)


def maps(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def run(words: list[str], env: dict[str, str]) -> dict[str, Any]:
    load, used = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True)
    seconds, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    told = next((line for line in done.stderr.splitlines() if line.startswith("seconds ")), "seconds {}")
    processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {"whole": seconds, "processor": processor, "load": load, **json.loads(told.removeprefix("seconds "))}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pictures", type=int, default=2000)
    words.add_argument("--rounds", type=int, default=1)
    given = words.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"predict": [], "on ray": []}
    with tempfile.TemporaryDirectory(prefix="gb-") as temporary:
        place = Path(temporary)
        (place / "in").mkdir()
        make(place / "in", given.pictures)
        save_bundle(place / "bundle")
        env = {**os.environ, "RAY_TMPDIR": str(place), "OMP_NUM_THREADS": "1"}
        for _ in range(given.rounds):
            for arm in found:
                out = place / arm.replace(" ", "-")
                shutil.rmtree(out, ignore_errors=True)
                command = ["predict", str(place / "bundle"), str(place / "in"), "--out", str(out)]
                if arm == "predict":
                    row = run(["-m", "garnish", *command], env)
                else:
                    row = run(["-c", TIMED, *command, "--on", "ray"], env)
                found[arm].append(row)
                print(arm, json.dumps(row), flush=True)
            assert maps(place / "predict") == maps(place / "on-ray"), "the files differ"
    whole = {arm: statistics.median(row["whole"] for row in rows) for arm, rows in found.items()}
    start = statistics.median(row["start"] for row in found["on ray"])
    result = {
        "pictures": given.pictures,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "ratio": round(whole["on ray"] / whole["predict"], 3),
        "ratio without the start of the cluster": round((whole["on ray"] - start) / whole["predict"], 3),
        "runs": found,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}))


if __name__ == "__main__":
    main()
