"""Decoders that several tasks share, for tests; also run as a script, in processes of their own."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import garnish as gn
import tiny
import training_cases
from garnish import registry
from garnish.engine.blocks import FeatureInfo
from garnish.heads.head import Head, JointHead
from garnish.model.model import Model


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(JointHead):
    """One convolution for all tasks, then an output for each; tasks do not see each other's maps."""

    channels: int = 8
    wide: bool = True

    @property
    def pyramid(self) -> bool:
        return self.wide

    def build_joint(self, features: Sequence[FeatureInfo], channels: Mapping[str, int]) -> nn.Module:
        return PlainDecoder(features, channels, self.channels)


class PlainDecoder(nn.Module):
    """The base is run once for tasks that are given the very same tensors."""

    def __init__(self, features: Sequence[FeatureInfo], outputs: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.lines = nn.ModuleList(nn.Conv2d(f.channels, width, 1) for f in features)
        self.norm = nn.BatchNorm2d(width)
        self.outputs = nn.ModuleDict({f"task_{name}": nn.Conv2d(width, n, 1) for name, n in outputs.items()})
        self.bases = 0
        self.calls: list[tuple[str, ...]] = []

    def forward(self, maps: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        done: dict[tuple[int, ...], Tensor] = {}
        if not torch.compiler.is_compiling():
            self.calls.append(tuple(maps))
        out = {}
        for name, given in maps.items():
            key = tuple(map(id, given))
            if key not in done:
                done[key] = self.base(given)
            out[name] = self.outputs[f"task_{name}"](done[key])
        return out

    def base(self, given: Sequence[Tensor]) -> Tensor:
        total = torch.zeros(())
        for x, line in zip(given, self.lines, strict=True):
            total = total + F.interpolate(line(x.contiguous()), given[0].shape[-2:], mode="bilinear")
        return F.relu(self.norm(total))


def joint_heads() -> dict[str, JointHead]:
    """Every joint head that is found, tiny, and the one of this file."""
    found = {n: tiny.example("heads", n) for n, cls in registry.classes("heads").items() if issubclass(cls, JointHead)}
    return {**found, "Plain": Plain()}


def model(
    short: str,
    method: Any,
    head: Head | Mapping[str, Head],
    *,
    tasks: Sequence[str] = tuple(tiny.TASKS),
    double: bool = True,
) -> Model:
    """A tiny model in evaluation mode in which every tensor is random, running statistics included."""
    torch.manual_seed(0)
    specs = {name: registry.build("tasks", *tiny.TASKS[name]) for name in tasks}
    made = gn.adapt(tiny.backbone(short), method, specs, head)
    randomise(made)
    return made.double().eval() if double else made.eval()


def randomise(made: Model) -> None:
    """Move everything of a model away from its start."""
    tiny.randomise_own(made)
    generator = torch.Generator().manual_seed(3)
    for name, tensor in made.own_tensors().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + ("var" in name))


def ddp_run(head: JointHead, batch_size: int, devices: int) -> tuple[Model, Any]:
    """Six steps with partial labels in float64, which one process and two must agree on; adapters a task."""
    made = training_cases.tiny(gn.LoRA(rank=2, per_task=True), head=head).double()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics of half a batch are others, with or without shared decoders
            module.eval()
            module.train = lambda mode=True: None  # type: ignore[method-assign,misc,assignment]
    result = gn.fit(
        made,
        training_cases.Blobs(training_cases.PARTIAL),
        training_cases.Blobs(training_cases.every(3), seed=1),
        steps=6,
        seed=training_cases.DDP_SEED,
        batch_size=batch_size,
        devices=devices,
        accelerator="cpu",
        lr=1e-3,
        check_pictures=4,
        **training_cases.QUIET,
    )
    return made, result


if __name__ == "__main__":
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    registry.classes("heads")["Plain"] = Plain
    for label, joint in joint_heads().items():
        trained, reached = ddp_run(joint, 2, 2)
        assert all("have batch norms" in line for line in reached.warnings), reached.warnings
        rank = os.environ.get("LOCAL_RANK", "0")
        save_file(training_cases.tensors_of(trained), Path(sys.argv[1]) / f"{label}-rank{rank}.safetensors")
