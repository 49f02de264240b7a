"""Checkpoint files to resume training from: tensors in full precision and JSON facts in one safetensors file.

The file is replaced by one rename, so a kill at any moment leaves either the old state or the new one. It holds its
own SHA-256 (:mod:`garnish.files.checksums`), which is checked at every read. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from garnish.checking.plain_data import Json
from garnish.errors import BundleError, one_line
from garnish.files.atomic import write_file, writing
from garnish.files.checksums import KEY, is_sealed, sealed, with_place
from garnish.files.path_text import given_path

#: A number that JSON stores exactly (floats are written so that they read back bit-equal), or None.
Number = int | float | bool | None
#: Optimizer state: parameter name → entry name → value.
Nested = dict[str, dict[str, Tensor | Number]]

_FACTS = "garnish.facts"


def save_state(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Json],
    *,
    keep: str | None = None,
) -> Path:
    """Write or replace a state file.

    Args:
        path: the file, usually ``….safetensors``.
        tensors: by name, on any device; stored bit for bit, with dtype and shape.
        facts: JSON-serialisable; string keys other than ``sha256``. Infinite and NaN floats are allowed.
        keep: new file name of the previous state, in the same folder; None: it is not kept.

    Returns:
        The file.

    Raises:
        BundleError: facts that are not JSON, or no space; the previous file is untouched then.
    """
    try:
        text = json.dumps(dict(facts), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path}: facts cannot be written as JSON ({one_line(error, 120)})") from error
    kept = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with writing(f"{path}: the state", " or choose another folder; the former state is untouched"):
        file = given_path(path, "checkpoint", BundleError)
        data = sealed(to_bytes(kept, {_FACTS: with_place(text)}))
        write_file(file, data, keep=None if keep is None else file.with_name(keep))
    return Path(path)


def load_state(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Read a state file: its tensors, on the CPU, and its facts.

    Raises:
        BundleError: no such file, a damaged one, or one that :func:`save_state` did not write.
    """
    file = given_path(path, "checkpoint", BundleError)
    if not file.is_file():
        raise BundleError(f"{path}: no such state file; start again without resuming")
    try:
        with file.open("rb") as stream:
            is_sealed(stream)
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        facts = json.loads(metadata[_FACTS])
    except KeyError as error:
        raise BundleError(f"{path}: is not a training state (it holds no facts); give another file") from error
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is damaged ({one_line(error, 120)}); resume from another or start again") from error
    if not isinstance(facts, dict):
        raise BundleError(f"{path}: is not a training state (its facts are not a mapping); give another file")
    facts.pop(KEY, None)
    return tensors, facts


def flatten(
    nested: Mapping[str, Mapping[str, Tensor | Number]],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Number]]]:
    """Optimizer state as :func:`save_state` takes it: tensors named ``outer/inner``, and numbers in a nested mapping.

    Every outer name is a key of the numbers, even if it has no numbers.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Number]] = {}
    for outer, entries in nested.items():
        numbers[outer] = {}
        for inner, value in entries.items():
            assert "/" not in inner, "entry names of optimizers hold no slash"
            if isinstance(value, Tensor):
                tensors[f"{outer}/{inner}"] = value
            else:
                numbers[outer][inner] = value
    return tensors, numbers


def unflatten(tensors: Mapping[str, Tensor], numbers: Mapping[str, Mapping[str, Number]]) -> Nested:
    """The inverse of :func:`flatten`.

    Raises:
        BundleError: a tensor whose outer name is missing in the numbers.
    """
    nested: Nested = {outer: dict(entries) for outer, entries in numbers.items()}
    for name, tensor in tensors.items():
        outer, _, inner = name.rpartition("/")
        if outer not in nested:
            raise BundleError(f"state tensor {name!r} belongs to no entry; the state is damaged or of another run")
        nested[outer][inner] = tensor
    return nested
