"""One picture on disk: as it was augmented, its targets, and what the trunk made of it, in a safetensors file.

Tensors are kept bit by bit. Maps are written in the trunk's own order of memory (channels last where it has that), and
what stands in two places of a state is written once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor
from torchvision import tv_tensors

from garnish.checking.plain_data import Json
from garnish.data.dataset import Sample
from garnish.engine.trunk_start import TrunkState
from garnish.errors import DataError, one_line
from garnish.files.checksums import is_sealed, sealed, with_place
from garnish.tasks.task import Task

#: Raised when what is written is arranged or computed differently than before.
FORMAT = 1

_FACTS = "garnish.features"

Packed = tuple[dict[str, Tensor], dict[str, Json]]


def pack(sample: Sample) -> Packed:
    """(tensors by name, JSON-ready facts) of a sample with a state of this one picture."""
    state = sample.start
    assert state is not None
    tensors: dict[str, Tensor] = {"image": _plain(sample.image)}
    kinds: dict[str, list[str]] = {}
    for task, target in sample.targets.items():
        plain = _plain(target)
        small = plain.to(torch.uint8) if isinstance(target, tv_tensors.Mask) else None  # ids and marks are small
        is_small = small is not None and torch.equal(small.to(plain.dtype), plain)
        tensors[f"target.{task}"] = small if small is not None and is_small else plain
        kinds[task] = [type(target).__name__, str(plain.dtype).removeprefix("torch.")]
    same: dict[str, str] = {}
    last: list[str] = []
    known: dict[tuple[object, ...], str] = {}
    for name, x in state.named():
        place = (x.data_ptr(), x.shape, x.stride(), x.dtype)
        if place in known:
            same[name] = known[place]
            continue
        known[place] = name
        if name != "x" and x.stride(1) == 1:
            last.append(name)
            x = x.permute(0, 2, 3, 1)
        tensors[f"state.{name}"] = x
    tensors |= {f"extra.{name}": x for name, x in state.extras.items() if x is not None}
    # copies: a map is often a part of the stream
    tensors = {n: x.detach().cpu().clone(memory_format=torch.contiguous_format) for n, x in tensors.items()}
    facts = {
        "format": FORMAT,
        "name": sample.name,
        "targets": kinds,
        "unit": state.unit,
        "size": list(state.size),
        "grid": list(state.grid),
        "same": same,
        "channels_last": last,
        "no_extra": [name for name, x in state.extras.items() if x is None],
    }
    return tensors, facts


def unpack(packed: Packed, tasks: Mapping[str, Task]) -> Sample:
    """The inverse of :func:`pack`; ``tasks`` are those of the set that the picture is of."""
    tensors, facts = packed
    named = {name.removeprefix("state."): x for name, x in tensors.items() if name.startswith("state.")}
    for name in facts["channels_last"]:
        named[name] = named[name].permute(0, 3, 1, 2)
    named |= {name: named[other] for name, other in facts["same"].items()}
    extras: dict[str, Tensor | None] = dict.fromkeys(facts["no_extra"])
    extras |= {name.removeprefix("extra."): x for name, x in tensors.items() if name.startswith("extra.")}
    size, grid = facts["size"], facts["grid"]
    state = TrunkState.of_names(named, extras, facts["unit"], (size[0], size[1]), (grid[0], grid[1]))
    targets = {}
    for task, (kind, dtype) in facts["targets"].items():
        made = tasks[task].target.wrap(tensors[f"target.{task}"].to(getattr(torch, dtype)))
        if type(made).__name__ != kind:
            raise ValueError(f"the label of {task!r} is a {kind}, and not a {type(made).__name__}")
        targets[task] = made
    return Sample(tv_tensors.Image(tensors["image"]), targets, facts["name"], state)


def as_bytes(packed: Packed) -> bytes:
    """The file, with its own SHA-256 (:mod:`garnish.files.checksums`)."""
    tensors, facts = packed
    return b"".join(sealed(to_bytes(tensors, {_FACTS: with_place(json.dumps(facts))})))


def read_features(file: Path, tasks: Mapping[str, Task]) -> Sample:
    """The sample in a file, of a set with such tasks.

    Raises:
        DataError: a file that is damaged or of another format. OSError: none there.
    """
    try:
        with file.open("rb") as stream:
            whole = is_sealed(stream)
        with safe_open(file, framework="pt", device="cpu") as opened:
            facts = json.loads(opened.metadata()[_FACTS])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        # what an earlier version wrote has a sum of each tensor instead
        if facts["format"] != FORMAT or (not whole and facts["sums"] != _sums(tensors)):
            raise ValueError("it has another format, or other sums than it was written with")
        return unpack((tensors, facts), tasks)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: is damaged ({one_line(error, 100)}); delete it") from error


def _sums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: _sum(x) for name, x in tensors.items()}


def _sum(x: Tensor) -> int:
    """Sum of the bytes, eight at a time: a changed byte changes it."""
    data = x.reshape(-1).view(torch.uint8).numpy()
    whole = data.size // 8 * 8
    return int(data[:whole].view(np.int64).sum()) + int(data[whole:].sum())


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)
