"""Many pictures: ``garnish predict``'s threads against a loop that reads, predicts and writes in turn.

    python benchmarks/predict/measure.py [--pictures 500] [--rounds 10] [--threads 1]

Pictures are JPEGs of 640×480 (scenes of garnish's own, enlarged, with noise as of a camera); the model is
``garnish_b0`` with LoRA and two tasks, and both arms write maps and a sheet of each picture, the same files. Both have
one model in one process and the same threads of torch; the arms take turns, a round each, so that slow stretches of the
machine fall on both. Prints seconds, processor seconds and the load, and keeps them in benchmarks/predict/results.json.

Where others use the machine, two threads may get no more of it than one: before each round two of them deflate bytes,
and "cores of two threads" says how many processors that had. Rounds in which it was at least 1.7 are told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import garnish as gn
from garnish.model.model import Model
from garnish.model.predict_many import picture_work
from garnish.predicting.write_options import WriteOptions
from garnish.predicting.writing import write_maps
from garnish.tiles.tiling import Tiling

RESULTS = Path(__file__).with_name("results.json")
SIZE = (640, 480)


class Silent:
    """Is told of pictures and says nothing."""

    def picture(self, line: str | None) -> None:
        """One more is done."""


def make_pictures(folder: Path, count: int) -> list[Path]:
    scenes = gn.Scenes(16, seed=1)
    draw = np.random.default_rng(0)
    files = []
    for number in range(count):
        scene = Image.fromarray(scenes[number % 16].image.numpy().transpose(1, 2, 0)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        noisy = np.asarray(scene, np.float32) + draw.normal(0, 4, (SIZE[1], SIZE[0], 1))
        files.append(folder / f"{number:04d}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(files[-1], quality=92)
    return files


def make_model() -> Model:
    torch.manual_seed(0)
    tasks = gn.Scenes(1, seed=1).tasks
    method, head = gn.LoRA(rank=8), gn.SegFormerHead(channels=64)
    return gn.adapt(gn.backbone("garnish_b0"), method, {t: tasks[t] for t in ("seg", "depth")}, head).eval()


def cores_of_two() -> float:
    """How many processors two threads get, that deflate bytes for a fifth of a second each."""
    data = np.random.default_rng(0).integers(0, 30, 2**22, dtype=np.uint8).tobytes()
    threads = [threading.Thread(target=zlib.compress, args=(data, 6)) for _ in range(2)]
    start, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - used) / (time.perf_counter() - start)


def in_turn(model: Model, files: list[Path], out: Path) -> None:
    for file in files:
        model.predict(file).write(out)


def overlapping(model: Model, files: list[Path], out: Path) -> None:
    work = picture_work(model, None, batch=None, probabilities=False, tiling=Tiling())
    found = write_maps({file.stem: file for file in files}, WriteOptions(out=out), model.tasks, work, Silent())
    assert found.count == len(files), found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pictures", type=int, default=500)
    words.add_argument("--rounds", type=int, default=10)
    words.add_argument("--threads", type=int, default=1)
    given = words.parse_args()
    torch.set_num_threads(given.threads)
    arms: dict[str, Callable[[Model, list[Path], Path], None]] = {"in turn": in_turn, "overlapping": overlapping}
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    processor: dict[str, list[float]] = {arm: [] for arm in arms}
    load: list[float] = []
    cores: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files, model = make_pictures(folder, given.pictures), make_model()
        for run in arms.values():
            run(model, files[:2], folder / "warm")
        for number in range(given.rounds):
            cores.append(cores_of_two())
            chosen = files[number :: given.rounds]
            for arm in list(arms)[:: 1 if number % 2 == 0 else -1]:
                load.append(os.getloadavg()[0])
                start, used = time.perf_counter(), time.process_time()
                arms[arm](model, chosen, folder / arm)
                seconds[arm].append(time.perf_counter() - start)
                processor[arm].append(time.process_time() - used)
            done = [] if number + 1 < given.rounds else [folder / name for name in arms]
            tell(seconds, processor, load, cores, given, len(chosen), done)


def tell(
    seconds: dict[str, list[float]],
    processor: dict[str, list[float]],
    load: list[float],
    cores: list[float],
    given: argparse.Namespace,
    each: int,
    folders: list[Path],
) -> None:
    """Print and keep what was measured so far; ``folders``: of both arms, at the end."""
    pictures = each * len(seconds["in turn"])
    ratios = [round(one / other, 3) for one, other in zip(*seconds.values(), strict=True)]
    quiet = [ratio for ratio, number in zip(ratios, cores, strict=True) if number >= 1.7]
    found = {
        "pictures": pictures,
        "threads of torch": given.threads,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "load, median": round(statistics.median(load), 1),
        "seconds": {arm: round(sum(values), 1) for arm, values in seconds.items()},
        "processor seconds": {arm: round(sum(values), 1) for arm, values in processor.items()},
        "pictures per second": {arm: round(pictures / sum(values), 2) for arm, values in seconds.items()},
        "times as fast": round(sum(seconds["in turn"]) / sum(seconds["overlapping"]), 3),
        "of each round": ratios,
        "cores of two threads": [round(number, 2) for number in cores],
        "of rounds with two cores": round(statistics.median(quiet), 3) if quiet else None,
    }
    if folders:
        names = [sorted(file.name for file in folder.iterdir()) for folder in folders]
        read = [[(folder / name).read_bytes() for name in names[0]] for folder in folders]
        found["files are equal"] = names[0] == names[1] and read[0] == read[1]
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
