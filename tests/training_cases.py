"""Tiny models and hand-made pictures for the tests of training; also run as a script in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision import tv_tensors

import garnish as gn
from garnish.data.dataset import Dataset, DepthMap, Sample
from garnish.model.model import Model
from garnish.tasks.task import Task

TASKS: dict[str, Task] = {"seg": gn.Semantic(classes=3), "depth": gn.Depth(max_metres=10.0)}
QUIET: dict[str, Any] = {"progress": False, "log": ("csv",), "augment": None}


class Blobs(Dataset):
    """Random pictures whose labels follow from their colours; ``labelled[i]`` names the tasks picture i has."""

    def __init__(
        self, labelled: Sequence[Sequence[str]], *, sizes: Sequence[tuple[int, int]] = ((48, 64),), seed: int = 0
    ) -> None:
        self.labelled, self.sizes, self.seed = labelled, sizes, seed
        self.kill_at: int | None = None
        self.reads = 0

    @property
    def name(self) -> str:
        return "blobs"

    @property
    def tasks(self) -> Mapping[str, Task]:
        return TASKS

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> Sample:
        self.reads += 1
        if self.reads == self.kill_at:
            os.kill(os.getpid(), signal.SIGTERM)
        height, width = self.sizes[index % len(self.sizes)]
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
        image = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")[0]
        ids = image.argmax(0)
        ids[: height // 4, : 8 * (index % 3)] = 255
        targets = {"seg": tv_tensors.Mask(ids), "depth": DepthMap(0.5 + 4 * image[:1])}
        kept = {name: targets[name] for name in self.labelled[index]}
        return Sample(tv_tensors.Image((image * 255).to(torch.uint8)), kept, f"blob{index}")


def every(count: int) -> list[list[str]]:
    """All labels for each of ``count`` pictures."""
    return [list(TASKS)] * count


#: labels of 16 pictures, some of one task only, some of none
PARTIAL = [
    *[["seg", "depth"], ["seg"], ["seg"], ["seg"]],
    *[["depth"], ["seg"], [], []],
    *[["depth"], [], ["seg", "depth"], ["seg"]],
    *[["seg"], ["seg"], ["depth"], ["depth"]],
]


def tiny(method: Any = None, *, head: Any = None, seed: int = 3) -> Model:
    """A ViT of width 48 with LoRA and a linear head a task."""
    torch.manual_seed(seed)
    options = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
    trunk = gn.backbone("vit_tiny_patch16_224", options=options)
    return gn.adapt(trunk, method or gn.LoRA(rank=2, dropout=0.1), TASKS, head or gn.LinearHead())


def moved(model: Model) -> Model:
    """The same model, what it trains moved away from where it starts."""
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 20)
    return model


def tensors_of(model: Model) -> dict[str, torch.Tensor]:
    """Copies of everything that is trained or kept."""
    return {name: tensor.detach().clone() for name, tensor in model.own_tensors().items()}


def long_run(out: Path | None, resume: Path | None = None, pause: float = 0.0) -> tuple[Model, Any]:
    """The run that the resume tests cut off: dropout, batch norm, two evaluations, accumulation."""
    model = tiny(head=gn.SegFormerHead(channels=8))
    train, val = Blobs(PARTIAL), Blobs(every(3), seed=1)
    options = {"steps": 12, "batch_size": 2, "accumulate": 2, "eval_every": 4, "save_every": 1, "lr": 3e-3, "seed": 5}
    if pause:
        train = Slow(PARTIAL)
    quiet = QUIET | {"augment": gn_augment()}
    return model, gn.fit(model, train, val, out=out, resume=resume, check_pictures=0, **options, **quiet)


class Slow(Blobs):
    """Leaves time to be killed."""

    def __getitem__(self, index: int) -> Sample:
        time.sleep(0.05)
        return super().__getitem__(index)


def gn_augment() -> Any:
    from garnish.data.augment import Augment

    return Augment(scale=(0.8, 1.2), flip=0.5, colour=0.2)


#: with this order of PARTIAL, steps of two ranks have every kind of gap (a test says so)
DDP_SEED = 5


def ddp_run(batch_size: int, devices: int, dtype: torch.dtype, balance: Any = None) -> tuple[Model, Any]:
    """The run that one and two processes must agree on; labels are partial."""
    model = tiny(gn.LoRA(rank=2)).to(dtype)
    result = gn.fit(
        model,
        Blobs(PARTIAL),
        Blobs(every(3), seed=1, sizes=((48, 64), (32, 48))),
        steps=6,
        seed=DDP_SEED,
        batch_size=batch_size,
        devices=devices,
        accelerator="cpu",
        lr=1e-3,
        check_pictures=4,
        balance=balance,
        **QUIET,
    )
    return model, result


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "cut":
        long_run(folder / "cut", pause=1)
    elif what == "ddp":
        from safetensors.torch import save_file

        from garnish.training import run as whole_run

        whole_run._ROUNDING_PICTURES = 2  # of three, so that the second rank has nothing in the second part
        for dtype in (torch.float64, torch.float32):
            trained, reached = ddp_run(2, 2, dtype)
            file = folder / f"{dtype}-rank{os.environ.get('LOCAL_RANK', '0')}"
            save_file(tensors_of(trained), f"{file}.safetensors")
            Path(f"{file}.json").write_text(json.dumps([reached.metrics, reached.warnings]))
        learnt = gn.Uncertainty().build(TASKS)
        trained, _ = ddp_run(2, 2, torch.float64, learnt)
        ends = tensors_of(trained) | {n: t.detach() for n, t in learnt.named_parameters()}
        save_file(ends, folder / f"uncertainty-rank{os.environ.get('LOCAL_RANK', '0')}.safetensors")
