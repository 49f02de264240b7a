"""A model's own tensors as a bundle stores them, and loading stored tensors into a model.

Names are those of :meth:`garnish.model.model.Model.own_tensors`. At float16, backbone parameters trained in place
(``tuned.*``) are stored as differences to the frozen ones, which keeps three digits of the change; at float32 as
values.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor

from garnish.bundles.bundle_json import WEIGHTS, BundleFacts
from garnish.bundles.given_bundle import MOST_WEIGHTS
from garnish.checking.finite import is_finite, not_finite
from garnish.engine.trunk import Trunk
from garnish.errors import BundleError, one_line
from garnish.files.regular import check_regular, read_regular
from garnish.files.safetensors_header import read_header
from garnish.model.model import Model
from garnish.model.stored_size import DTYPES

StoredDtype = Literal["float16", "float32"]
TunedAs = Literal["difference", "value"]
#: How ``tuned.*`` tensors are stored at each dtype: a float32 difference may not restore the value exactly.
TUNED_AS: Mapping[StoredDtype, TunedAs] = {"float16": "difference", "float32": "value"}


#: Largest weights of a bundle that are read, bytes; the largest trunk, tuned as a whole at float32, has half of it.
MOST_BYTES = MOST_WEIGHTS

#: Name of a stored tensor → its dtype and shape.
Kinds = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class BeyondFloat16(BundleError):
    """A finite value that would be stored as infinite."""


def stored_tensors(model: Model, tasks: Sequence[str], dtype: StoredDtype) -> dict[str, Tensor]:
    """The tensors of a bundle of these tasks, on the CPU; an owner is named by those of its tasks that are saved.

    Raises:
        BundleError: a value that is not finite. BeyondFloat16: one beyond float16's range. Both name the tensor.
    """
    wanted = torch.float16 if dtype == "float16" else torch.float32
    frozen = model.backbone.frozen_tensors()
    found: dict[str, Tensor] = {}
    for owner in model.owners:
        kept = owner.name_for(tasks)
        if not kept:
            continue
        for name, tensor in owner.tensors().items():
            kind, _, rest = name.split(".", 2)
            value = tensor.detach()
            if kind == "tuned" and TUNED_AS[dtype] == "difference":
                value = value - frozen[rest].detach()
            found[f"{kind}.{kept}.{rest}"] = _narrowed(value, wanted, name)
    for task in tasks:
        for name, tensor in model.head_tensors(task).items():
            found[name] = _narrowed(tensor.detach(), wanted, name)
    return found


def _narrowed(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.cpu().clone().contiguous()
    stored = tensor.to(dtype)
    if not is_finite(stored):
        if odd := not_finite({name: tensor}):
            raise BundleError(f"{odd}; nothing was saved: train the model again, or save an earlier one")
        most = f"{name}: its largest value {tensor.abs().max().item():.3g} is beyond"
        if dtype == torch.float16:
            raise BeyondFloat16(f"{most} float16; save with dtype='float32'")
        raise BundleError(f"{most} float32, the widest type that a bundle holds; train the model again")
    return stored.cpu().clone().contiguous()


def kinds_of(folder: Path, facts: BundleFacts) -> Kinds:
    """The dtypes and shapes of a bundle's tensors by name, from the header of ``weights.safetensors``.

    Args:
        folder: of the bundle.
        facts: its description.

    Raises:
        BundleError: no such file, one that is not regular, not of the size in the description, or damaged.
    """
    file = folder / WEIGHTS
    with _reading(file):
        _check_size(file, check_regular(file, MOST_BYTES), facts)
        header = read_header(file, MOST_BYTES)
        if odd := [dtype for dtype, _ in header.values() if dtype not in DTYPES]:
            raise ValueError(f"it holds {odd[0]}, which no model has")
    return {name: (DTYPES[dtype], shape) for name, (dtype, shape) in header.items()}


def weights_of(folder: Path, facts: BundleFacts) -> bytes:
    """The bytes of a bundle's ``weights.safetensors``, after checking their size and their SHA-256.

    Args:
        folder: of the bundle.
        facts: its description.

    Raises:
        BundleError: no such file, or a size or SHA-256 that differs from the description's.
    """
    file = folder / WEIGHTS
    with _reading(file):
        _check_size(file, check_regular(file, MOST_BYTES), facts)
        data = read_regular(file, facts["sizes"]["weights_bytes"])
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise BundleError(f"{file}: differs from what was saved (its SHA-256 is another); copy or save it again")
    return data


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Errors of reading a bundle's weights become one line."""
    try:
        yield
    except BundleError:
        raise
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}); save the bundle again") from error
    except ValueError as error:
        raise BundleError(f"{file}: is damaged ({one_line(error, 120)}); save it again") from error


def _check_size(file: Path, size: int, facts: BundleFacts) -> None:
    if size != (told := facts["sizes"]["weights_bytes"]):
        raise BundleError(
            f"{file}: differs from what was saved (it has {size:,} bytes, and {told:,} by the description); "
            "copy or save it again"
        )


def read_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Parse a safetensors file; raises :class:`BundleError`, naming ``where``, if damaged or not finite."""
    try:
        tensors: dict[str, Tensor] = from_bytes(data)
    except (SafetensorError, KeyError, ValueError, OverflowError) as error:
        raise BundleError(f"{where}: is damaged ({one_line(error, 120)}); save it again") from error
    if odd := not_finite(tensors):
        raise BundleError(
            f"{where}: {odd}; it is of a run that diverged, or damaged: take an earlier one, or train again"
        )
    return tensors


def fill(
    trunk: Trunk,
    targets: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    dtype: StoredDtype,
    tuned_as: TunedAs,
    where: str,
) -> None:
    """Copy stored tensors into a model's tensors of the same names, which must match one to one.

    Raises:
        BundleError: a missing or unused tensor, or one of another shape or type; nothing is copied then.
    """
    check_fit(targets, {name: (t.dtype, tuple(t.shape)) for name, t in stored.items()}, dtype, where)
    has_tuned = any(name.startswith("tuned.") for name in targets)
    frozen = trunk.frozen_tensors() if has_tuned and tuned_as == "difference" else {}
    with torch.no_grad():
        for name, target in targets.items():
            value = stored[name].to(target.device)
            kind, _, rest = name.split(".", 2)
            if kind == "tuned" and tuned_as == "difference":
                value = frozen[rest] + value.to(target.dtype)
            target.copy_(value)


def check_fit(targets: Mapping[str, Tensor], stored: Kinds, dtype: StoredDtype, where: str) -> None:
    """Raise :class:`BundleError` unless tensors of these kinds fill the targets one to one; ``where`` is their file."""
    remedy = "the file is of another model or damaged; get or save the bundle again"
    for kind, names in (
        ("lacks", [n for n in targets if n not in stored]),
        ("holds the unused", [n for n in stored if n not in targets]),
    ):
        if names:
            raise BundleError(f"{where}: {kind} {names[0]} ({len(names)} such of {len(targets)} expected); {remedy}")
    for name, target in targets.items():
        held, shape = stored[name]
        if shape != target.shape:
            raise BundleError(f"{where}: {name} has shape {shape}, the model {tuple(target.shape)}; {remedy}")
        wanted = getattr(torch, dtype) if target.is_floating_point() else target.dtype
        if held != wanted:
            raise BundleError(f"{where}: {name} is {_name(held)}, expected {_name(wanted)}; {remedy}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
