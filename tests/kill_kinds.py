"""What is killed: commands, in how many processes, and all that they leave."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECIPE = """\
backbone: {{name: mit_b0, weights: {weights}, options: {options}}}
adapter: {{name: LoRA, rank: 2, dropout: 0.1}}
head: {{name: SegFormerHead, channels: 8}}
tasks: [seg]
data: {{name: scenes, train: 4, val: 2, test: 2, size: 32}}
train: {{steps: 4, batch_size: 2, eval_every: 2, save_every: 1, log: [csv], log_every: 1, lr: 1.0e-3, accelerator: cpu}}
"""
COMPARE = ["--adapters=LoRA(rank=2)", "--references=frozen", "--seeds=1", "--rates=1e-3,3e-3", "--widen=0"]


@dataclass(frozen=True)
class Kind:
    """What is killed: a command, in how many processes."""

    name: str
    words: tuple[str, ...]
    forks: bool
    like: str

    @property
    def is_train(self) -> bool:
        return self.words[0] == "train"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("train", ("train",), forks=True, like="train"),
        Kind("compare", ("compare", *COMPARE), forks=True, like="compare"),
        Kind("train, fresh", ("train",), forks=False, like="train"),
        Kind(
            "train, 2 processes",
            ("train", "--train.devices", "2", "--train.batch_size", "1"),
            forks=False,
            like="train, 2 processes",
        ),
        Kind("compare, fresh", ("compare", *COMPARE), forks=False, like="compare"),
        # the run of a worker that dies alone has failed, and is only tried again if that is asked for
        Kind("compare --jobs 2", ("compare", *COMPARE, "--jobs", "2", "--retry-failed"), forks=False, like="compare"),
    )
}


def contents(kind: Kind, out: Path) -> dict[str, Any]:
    """Everything that a finished run left, without what is of the clock: what must be equal."""
    from safetensors import safe_open

    from comparing_cases import without_times

    left = [str(file) for file in out.rglob("*") if "writing" in file.name or "replaced" in file.name]
    found: dict[str, Any] = {"nothing half-written": not left}
    if not kind.is_train:
        results = json.loads((out / "results.json").read_text("utf-8"))
        found |= {"results": without_times(results)}
        found |= {file.name: file.read_bytes() for file in (out / "pictures").glob("*")}
        found["no checkpoint"] = not list(out.rglob("state.safetensors"))
        return found
    for name in ("best/weights.safetensors", "best/bundle.json", "best/SHA256SUMS", "results.csv", "args.yaml"):
        found[name] = (out / name).read_bytes()
    with safe_open(out / "last/state.safetensors", framework="np") as state:
        found["state"] = {name: state.get_tensor(name).tobytes() for name in state.keys()}  # noqa: SIM118
        facts = json.loads(state.metadata()["garnish.facts"])
    del facts["sha256"], facts["state"]["seconds"]
    found["facts"] = facts
    with (out / "log/scalars.csv").open(newline="") as stream:
        found["scalars"] = [{k: v for k, v in row.items() if k != "steps_per_second"} for row in csv.DictReader(stream)]
    return found


def differing(one: Any, other: Any, at: str = "") -> list[str]:
    """The places of two contents that differ, with values that are short."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [line for key in keys for line in differing(one.get(key), other.get(key), f"{at}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [line for k, pair in enumerate(zip(one, other, strict=True)) for line in differing(*pair, f"{at}[{k}]")]
    same = one == other or repr(one) == repr(other)  # NaN is NaN
    return [] if same else [f"{at}: {str(one)[-80:]} != {str(other)[-80:]}"]


def amount(folder: Path) -> int:
    """Something that changes with every save."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += 1 + Path(place, name).stat().st_mtime_ns // 1000
    return total


def children(pid: int) -> list[int]:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in file.read_text().split()] if file.is_file() else []
