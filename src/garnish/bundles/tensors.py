"""A model's own tensors as a bundle stores them, and loading stored tensors into a model.

Names are those of :meth:`garnish.model.model.Model.own_tensors`. At float16, backbone parameters trained in place
(``tuned.*``) are stored as differences to the frozen ones, which keeps three digits of the change; at float32 as
values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor

from garnish.bundles.bundle_json import WEIGHTS
from garnish.checking.finite import is_finite, not_finite
from garnish.checking.plain_data import Json
from garnish.engine.trunk import Trunk
from garnish.errors import BundleError, one_line
from garnish.model.model import Model

StoredDtype = Literal["float16", "float32"]
TunedAs = Literal["difference", "value"]
#: How ``tuned.*`` tensors are stored at each dtype: a float32 difference may not restore the value exactly.
TUNED_AS: Mapping[StoredDtype, TunedAs] = {"float16": "difference", "float32": "value"}


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


def weights_of(folder: Path, facts: Mapping[str, Json]) -> bytes:
    """The bytes of a bundle's ``weights.safetensors``, after checking their SHA-256.

    Args:
        folder: of the bundle.
        facts: its description.

    Raises:
        BundleError: no such file, or a SHA-256 that differs from the description's.
    """
    file = folder / WEIGHTS
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}); save the bundle again") from error
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise BundleError(f"{file}: differs from what was saved (its SHA-256 is another); copy or save it again")
    return data


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
    _check_fit(targets, stored, dtype, where)
    frozen = trunk.frozen_tensors() if tuned_as == "difference" else {}
    with torch.no_grad():
        for name, target in targets.items():
            value = stored[name].to(target.device)
            kind, _, rest = name.split(".", 2)
            if kind == "tuned" and tuned_as == "difference":
                value = frozen[rest] + value.to(target.dtype)
            target.copy_(value)


def _check_fit(targets: Mapping[str, Tensor], stored: Mapping[str, Tensor], dtype: StoredDtype, where: str) -> None:
    remedy = "the file is of another model or damaged; save the bundle again"
    for kind, names in (
        ("lacks", [n for n in targets if n not in stored]),
        ("holds the unused", [n for n in stored if n not in targets]),
    ):
        if names:
            raise BundleError(f"{where}: {kind} {names[0]} ({len(names)} such of {len(targets)} expected); {remedy}")
    for name, target in targets.items():
        value = stored[name]
        if value.shape != target.shape:
            raise BundleError(
                f"{where}: {name} has shape {tuple(value.shape)}, the model {tuple(target.shape)}; {remedy}"
            )
        wanted = getattr(torch, dtype) if target.is_floating_point() else target.dtype
        if value.dtype != wanted:
            raise BundleError(f"{where}: {name} is {_name(value.dtype)}, expected {_name(wanted)}; {remedy}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
