"""Checkpoint files to resume training from: tensors in full precision and JSON facts in one safetensors file.

The file is replaced by one rename, so a kill at any moment leaves either the old state or the new one. It holds its
own SHA-256 (:mod:`garnish.files.checksums`), which is checked at every read. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from garnish.checking.plain_data import Json
from garnish.checking.stored_dtypes import STORED_DTYPES
from garnish.errors import BundleError, one_line
from garnish.files.atomic import write_file, writing
from garnish.files.checksums import KEY, is_sealed, sealed, with_place
from garnish.files.path_text import given_path
from garnish.files.regular import open_regular
from garnish.files.safetensors_header import MOST_HEADER, read_with_metadata
from garnish.files.strict_json import parse_json

#: A number that JSON stores exactly (floats are written so that they read back bit-equal), or None.
Number = int | float | bool | None
#: Optimizer state: parameter name → entry name → value.
Nested = dict[str, dict[str, Tensor | Number]]

#: Largest file that is read, bytes: above what a machine can hold.
MOST_BYTES = 2**40

_FACTS = "garnish.facts"
#: Escaped quotes make them up to twice as long in the header.
_MOST_FACTS = MOST_HEADER // 3


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
    if len(text) > _MOST_FACTS:  # it could not be read again
        raise BundleError(
            f"{path}: its facts, most of them evaluations, have {len(text):,} characters, more than the"
            f" {_MOST_FACTS:,} that a state may have; evaluate less often (train.eval_every)"
        )
    kept = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with writing(f"{path}: the state", " or choose another folder; the former state is untouched"):
        file = given_path(path, "checkpoint", BundleError)
        data = sealed(to_bytes(kept, {_FACTS: with_place(text)}))
        write_file(file, data, keep=None if keep is None else file.with_name(keep))
    return Path(path)


@final
@dataclass(frozen=True)
class SavedState:
    """A state file whose digest and header were checked, and whose tensors have not been read yet.

    Attributes:
        file: its path.
        shapes: name of a tensor → dtype and shape.
        facts: as given to :func:`save_state`.
    """

    file: Path
    shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    facts: dict[str, Json]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, on the CPU; raises BundleError if the file is gone or no longer what it was."""
        try:
            with safe_open(self.file, framework="pt", device="cpu") as opened:
                return {name: opened.get_tensor(name) for name in self.shapes}
        except (SafetensorError, OSError) as error:
            raise _damaged(self.file, error) from error


def open_state(path: str | os.PathLike[str], most: int = MOST_BYTES) -> SavedState:
    """Check a state file, and read its header and facts.

    Args:
        path: the file.
        most: its largest size in bytes; whoever knows the names and shapes of its tensors knows a better one.

    Raises:
        BundleError: no such file, a damaged or larger one, or one that :func:`save_state` did not write.
    """
    file = given_path(path, "checkpoint", BundleError)
    if not file.is_file():
        raise BundleError(f"{path}: no such state file; start again without resuming")
    try:
        header, metadata = read_with_metadata(file, most)
        with open_regular(file, most) as stream:
            is_sealed(stream)
        if _FACTS not in metadata:
            raise BundleError(f"{path}: is not a training state (it holds no facts); give another file")
        shapes = {name: (STORED_DTYPES[dtype], shape) for name, (dtype, shape) in header.items()}
        facts = parse_json(metadata[_FACTS], finite=False)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error
    if not isinstance(facts, dict):
        raise BundleError(f"{path}: is not a training state (its facts are not a mapping); give another file")
    facts.pop(KEY, None)
    return SavedState(file, shapes, facts)


def load_state(path: str | os.PathLike[str], most: int = MOST_BYTES) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Read a state file: its tensors, on the CPU, and its facts; see :func:`open_state`."""
    state = open_state(path, most)
    return state.tensors(), state.facts


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


def _damaged(path: object, error: Exception) -> BundleError:
    return BundleError(f"{path}: is damaged ({one_line(error, 120)}); resume from another or start again")
