"""What a run takes of a node, and how many runs the nodes of a cluster hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, final

import torch

from garnish.errors import OptionError, plural

#: A node as ``ray.nodes()`` tells it.
Node = Mapping[str, Any]


@final
@dataclass(frozen=True, kw_only=True)
class PerRun:
    """What each run has: CPUs that are kept for it, threads, and GPUs or a part of one."""

    cpus: int
    threads: int
    gpus: float

    def __str__(self) -> str:
        gpus = "no GPU" if not self.gpus else f"{self.gpus:g} GPU{'' if self.gpus <= 1 else 's'}"
        return f"{plural(self.cpus, 'CPU')}, {plural(self.threads, 'thread')}, {gpus}"

    def fit_on(self, node: Node) -> int:
        """How many runs a node holds that has nothing else to do."""
        has = node.get("Resources", {})
        held = int(has.get("CPU", 0) // self.cpus)
        return min(held, int(has.get("GPU", 0) / self.gpus + 1e-6)) if self.gpus else held


def per_run(
    nodes: Sequence[Node], *, jobs: int | None, cpus: int | None, gpus: float | None, accelerator: str
) -> PerRun:
    """What each run has, by what is given and, for the rest, by the cluster.

    Without ``cpus`` a run has as many threads as one of ``--jobs`` on this machine, so that both give the same digits;
    without ``jobs`` one. Without ``gpus`` it has one if there are any, unless the recipe says otherwise.

    Raises:
        OptionError: the recipe wants a GPU and none is given or there.
    """
    if gpus is None:
        gpus = float(accelerator != "cpu" and any(node.get("Resources", {}).get("GPU", 0) >= 1 for node in nodes))
    if accelerator not in ("auto", "cpu") and not gpus:
        raise OptionError(
            f"--on: train.accelerator is {accelerator}, but no run has a GPU; set --gpus 1 with nodes that have some,"
            " or --train.accelerator cpu"
        )
    if accelerator == "cpu" and gpus:
        raise OptionError(f"--gpus {gpus:g}: train.accelerator is cpu; leave one of them out")
    if cpus is not None:
        return PerRun(cpus=cpus, threads=cpus, gpus=gpus)
    share = max((os.cpu_count() or 1) // jobs, 1) if jobs else 1
    return PerRun(cpus=share, threads=min(torch.get_num_threads(), share), gpus=gpus)


def alive(ray: ModuleType) -> list[Node]:
    """The nodes of the cluster that are there now."""
    return [node for node in ray.nodes() if node.get("Alive", node.get("alive"))]


def most_of(nodes: Sequence[Node]) -> str:
    """The largest numbers of CPUs and GPUs that a node has, for messages."""
    has = [node.get("Resources", {}) for node in nodes]
    cpus, gpus = (max((each.get(name, 0) for each in has), default=0) for name in ("CPU", "GPU"))
    return f"{plural(int(cpus), 'CPU')} and {plural(int(gpus), 'GPU')} at most"
