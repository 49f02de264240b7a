"""Each task's metric over two processes is that of one; also run as a script, a process each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torchmetrics import Metric

import tiny
from garnish import registry
from garnish.tasks.normals import Normals
from garnish.tasks.saliency import Saliency
from garnish.tasks.semantic import Semantic
from garnish.tasks.task import Task
from garnish.training.task_details import gathered_details

pytestmark = pytest.mark.ddp

#: pictures of each process by round: unequal numbers, and a process that sees none
ROUNDS = {"unequal": ([0, 1, 2], [3, 4]), "one sees none": ([0, 1, 2, 3, 4], [])}


def tasks() -> dict[str, Task]:
    """Every task there is, and some with options that their metrics read."""
    found = {name: tiny.example("tasks", name) for name in registry.classes("tasks")}
    return found | {
        "parts": Semantic(classes=7, void_if_only_background=True),
        "thin": Semantic(classes=3, f1_class=1),
        "chosen": Saliency(iou_threshold=0.3, f_threshold=0.62),
    }


def pictures_of(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw outputs and targets of five pictures with holes."""
    g = torch.Generator().manual_seed(4)
    p = 2 * torch.randn(5, task.channels, 14, 17, generator=g)
    hole = torch.rand(5, 1, 14, 17, generator=g) < 0.2
    if isinstance(task, Normals):  # not far from the prediction, or nothing lies within small angles
        t = torch.nn.functional.normalize(p + torch.randn(p.shape, generator=g), dim=1)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            t = task.example(5, (14, 17))
    if isinstance(task, Semantic):
        hole, t[1] = hole[:, 0], 0
    return p, torch.where(hole, torch.tensor(task.target.missing, dtype=t.dtype), t)


def computed(pictures: list[int], reset_between: bool = False) -> dict[str, dict[str, float]]:
    """The metrics of these pictures, streamed one by one; over all processes, where there are several."""
    found = {}
    for name, task in tasks().items():
        p, t = pictures_of(task)
        metric = task.metric_with_details()
        metric.compute_with_cache = False
        if reset_between:
            metric.update(p[:1], t[:1])
            metric.reset()
        for index in pictures:
            metric.update(p[index : index + 1], t[index : index + 1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*called before the ``update`` method.*")
            found[name] = {k: float(v) for k, v in metric.compute().items()} | numbers_told({name: metric})
    return found


def numbers_told(metrics: dict[str, Metric]) -> dict[str, float]:
    """The numbers of the tables that a metric gives of all processes, by detail, row and column."""
    return {
        f"{detail.name}/{row}/{column}": float(cell)
        for details in gathered_details(metrics).found.values()
        for detail in details
        for row, cells in enumerate(detail.rows()[1:])
        for column, cell in enumerate(cells)
        if not isinstance(cell, str)
    }


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    env = os.environ | {"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    words = [sys.executable, __file__, str(folder)]
    ranks = [subprocess.Popen(words, env=env | {"RANK": str(rank)}, stderr=subprocess.PIPE) for rank in (0, 1)]
    for rank in ranks:
        _, err = rank.communicate(timeout=180)
        assert rank.returncode == 0, err.decode()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", list(tasks()))
def test_two_processes_measure_what_one_does(two_processes, name):
    whole = computed([0, 1, 2, 3, 4])[name]
    alone = computed([0, 1, 2])[name]
    headline = tasks()[name].headline
    assert alone[headline] != pytest.approx(whole[headline], rel=1e-6), "a process's own pictures give another value"
    for what in ROUNDS:
        first, second = (found[what][name] for found in two_processes)
        assert first == pytest.approx(second, rel=0, abs=0, nan_ok=True), "every process gets the metrics"
        assert first == pytest.approx(whole, rel=1e-6, nan_ok=True)  # kernels of float32 differ by batch


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    values = {what: computed(parts[rank], reset_between=True) for what, parts in ROUNDS.items()}
    (folder / f"{rank}.json").write_text(json.dumps(values))
    torch.distributed.destroy_process_group()
