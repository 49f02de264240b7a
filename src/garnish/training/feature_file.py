"""A file of the feature cache: one augmented picture, its targets and its trunk state, as safetensors.

Tensors are stored bit by bit, maps in the trunk's own memory format (channels last if it uses that); a tensor that
occurs twice in a state is written once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor
from torchvision import tv_tensors

from garnish.checking.plain_data import Json, Reading, integers, read_as
from garnish.data.dataset import Sample
from garnish.engine.trunk_start import TrunkState
from garnish.errors import DataError, one_line
from garnish.files.checksums import is_sealed, sealed, with_place
from garnish.files.regular import open_regular
from garnish.files.safetensors_header import read_with_metadata
from garnish.files.strict_json import parse_json
from garnish.tasks.task import Task

#: Increased when the layout or the computation of the contents changes.
FORMAT = 1

_FACTS = "garnish.features"

#: Largest file that is read, bytes: a picture and the state of a trunk.
_MOST_BYTES = 2**30
_READING = Reading(error=DataError, unknown="unknown key {place}", missing="has no {place}")
_Side = Annotated[int, integers(1, 2**20)]


class _Facts(TypedDict):
    """What :func:`pack` tells of the tensors; ``sums``: of an earlier version."""

    sha256: NotRequired[str]
    format: int
    name: str
    targets: dict[str, tuple[str, str]]
    unit: Annotated[int, integers(0, 10**6)]
    size: tuple[_Side, _Side]
    grid: tuple[_Side, _Side]
    same: dict[str, str]
    channels_last: list[str]
    no_extra: list[str]
    sums: NotRequired[dict[str, int]]


Packed = tuple[dict[str, Tensor], dict[str, Json]]


def pack(sample: Sample) -> Packed:
    """Convert a sample with its state to (tensors by name, JSON-serialisable facts)."""
    state = sample.start
    assert state is not None
    tensors: dict[str, Tensor] = {"image": _plain(sample.image)}
    kinds: dict[str, list[str]] = {}
    for task, target in sample.targets.items():
        plain = _plain(target)
        small = plain.to(torch.uint8) if isinstance(target, tv_tensors.Mask) else None  # ids and marks fit into uint8
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
    # copies, since a map is often a view of the stream
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
    """The inverse of :func:`pack`; ``tasks`` are those of the picture's data set."""
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
    """The bytes of the file, with its own SHA-256 (:mod:`garnish.files.checksums`)."""
    tensors, facts = packed
    return b"".join(sealed(to_bytes(tensors, {_FACTS: with_place(json.dumps(facts))})))


#: What damaged tensors, names and facts raise where they are put together.
_DAMAGED = (SafetensorError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)


def read_features(file: Path, tasks: Mapping[str, Task]) -> Sample:
    """Read the sample in a file; ``tasks`` are those of its data set.

    Raises:
        DataError: a file that is damaged, no regular file, or of another format. FileNotFoundError: no such file.
    """
    try:
        _, metadata = read_with_metadata(file, _MOST_BYTES)
        with open_regular(file, _MOST_BYTES) as stream:
            whole = is_sealed(stream)
        facts: _Facts = read_as(parse_json(metadata[_FACTS]), _Facts, "", _READING)
        with safe_open(file, framework="pt", device="cpu") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        # files of an earlier version have a sum of each tensor instead
        if facts["format"] != FORMAT or (not whole and facts.get("sums") != _sums(tensors)):
            raise ValueError("it has another format, or other sums than it was written with")
        sample = unpack((tensors, dict(facts)), tasks)
        for task, target in sample.targets.items():
            if tasks[task].target.categorical:  # ids beyond the classes would end the process on a GPU
                tasks[task].check_target(target, str(file))
        return sample
    except FileNotFoundError:
        raise
    except (OSError, *_DAMAGED) as error:
        raise DataError(f"{file}: is damaged ({one_line(error, 100)}); delete it") from error


def _sums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: _sum(x) for name, x in tensors.items()}


def _sum(x: Tensor) -> int:
    """Sum of the bytes, as 64-bit integers: any changed byte changes it."""
    data = x.reshape(-1).view(torch.uint8).numpy()
    whole = data.size // 8 * 8
    return int(data[:whole].view(np.int64).sum()) + int(data[whole:].sum())


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)
