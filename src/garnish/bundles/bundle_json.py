"""``bundle.json``: its schema, and reading it with validation. Nothing here needs torch.

:class:`BundleFacts` is the schema. ``SHA256SUMS`` next to it lists both files of a bundle
(:mod:`garnish.files.checksums`); bundles of older versions do not have it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from garnish.checking.plain_data import Json, Reading, matching, read_as
from garnish.errors import BundleError
from garnish.files.atomic import present
from garnish.files.strict_json import read_json
from garnish.registry import SpecFacts

FORMAT = 1
DESCRIPTION = "bundle.json"
WEIGHTS = "weights.safetensors"
#: The bundle of the best step, in the folder of a run.
BEST = "best"
INPUT = "RGB in [0,1]"
#: How ``bundle.json`` and similar files are validated.
FACTS = Reading(
    error=BundleError, unknown="unknown key {place}", missing="has no {place}; save the bundle again", builds=False
)

_Hex64 = Annotated[str, matching("[0-9a-f]{64}")]
TaskName = Annotated[str, matching("[A-Za-z][A-Za-z0-9_-]*")]
_Metrics = dict[str, dict[str, float | None]]


class BackboneFacts(SpecFacts):
    """Which backbone a file belongs to."""

    taps: NotRequired[Literal["stage", "merged"]]  # "stage" if absent
    fingerprint: _Hex64
    licence: str
    weights_source: str


class _BackboneFacts(BackboneFacts):
    non_commercial: bool


class _OwnerFacts(TypedDict):
    tasks: list[TaskName]
    methods: list[SpecFacts]  # the tasks share their tensors


class _TaskFacts(SpecFacts):
    head: SpecFacts
    channels: int
    labels: list[str]  # in the order of their ids
    palette: dict[str, list[int]]  # label → RGB in 0 … 255; empty for continuous maps


class _Preprocessing(TypedDict):
    input: str  # "RGB in [0,1]", then mean and std, then padding to multiple pixels
    mean: list[float]
    std: list[float]
    multiple: int


class _Sizes(TypedDict):
    weights_bytes: int
    encoder_parameters: int
    decoder_parameters: int


class BundleFacts(TypedDict):
    """``bundle.json`` of format 1; keys that are ``NotRequired`` may be absent."""

    format: int
    versions: dict[str, str]  # of the garnish, torch and timm that wrote it
    dtype: Literal["float16", "float32"]  # of the floating-point tensors
    #: How ``tuned.*`` tensors are stored: as the difference to the frozen parameter of that name (float16), or as the
    #: value itself (float32, since adding a rounded difference may not restore the value exactly).
    tuned_as: Literal["difference", "value"]
    backbone: _BackboneFacts
    owners: list[_OwnerFacts]  # in order
    tasks: dict[str, _TaskFacts]
    decoders: NotRequired[list[list[TaskName]]]  # tasks that share one, in the order it was built for
    preprocessing: _Preprocessing
    metrics: _Metrics  # task → metric → value reached (null: nothing was seen)
    #: Metrics with the stored, rounded tensors minus metrics before, as training measured them on at most 200
    #: validation pictures.
    metrics_rounding: NotRequired[_Metrics]
    sizes: _Sizes
    sha256: _Hex64  # of weights.safetensors
    extra: NotRequired[dict[str, Json]]  # facts that the caller of save added


def read_bundle_json(path: str | os.PathLike[str]) -> BundleFacts:
    """Read and validate the ``bundle.json`` of a bundle; the weights are not read.

    Args:
        path: a bundle's folder.

    Returns:
        The dictionary, see :class:`BundleFacts`.

    Raises:
        BundleError: no such folder, not a bundle, damaged, or of another format.
    """
    file = bundle_folder(path) / DESCRIPTION
    found = read_json(file, "description", "save the bundle again", summed=True)
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise BundleError(f"{file}: is not a bundle's description (it has no format number); give another folder")
    if found["format"] != FORMAT:
        raise BundleError(f"{file}: has format {found['format']}, this garnish reads {FORMAT}; install a newer one")
    facts: BundleFacts = read_as(found, BundleFacts, "", replace(FACTS, file=f"{file}: "))
    _check_tasks(facts, str(file))
    return facts


def bundle_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of an existing bundle; raises :class:`BundleError` if there is none."""
    folder = present(Path(path).expanduser())
    if not folder.exists():
        raise BundleError(f"{path}: no such bundle; give a folder that model.save or garnish train wrote")
    if not (folder / DESCRIPTION).is_file():
        given = Path(path)
        near = [p for p in (given / BEST, given.parent) if (p.expanduser() / DESCRIPTION).is_file()]
        meant = f"did you mean {near[0]}?" if near else "give a folder that model.save or garnish train wrote"
        what = f"it holds no {DESCRIPTION}" if folder.is_dir() else "it is a file"
        raise BundleError(f"{path}: is not a bundle ({what}); {meant}")
    return folder


def _check_tasks(found: BundleFacts, file: str) -> None:
    owned = [task for owner in found["owners"] for task in owner["tasks"]]
    for task in owned:
        if task not in found["tasks"] or owned.count(task) > 1:
            raise BundleError(f"{file}: task {task!r} is not described once and owned once; save the bundle again")
    for task in found["tasks"]:
        if task not in owned:
            raise BundleError(f"{file}: task {task!r} has no owner; save the bundle again")
    sharing = [task for group in found.get("decoders", ()) for task in group]
    for task in sharing:
        if task not in owned or sharing.count(task) > 1:
            raise BundleError(f"{file}: decoders: task {task!r} is unknown or named twice; save the bundle again")
    if not all(found.get("decoders", ())):
        raise BundleError(f"{file}: decoders: one has no task; save the bundle again")
    if not owned or not all(owner["tasks"] for owner in found["owners"]):
        raise BundleError(f"{file}: has an owner without tasks; save the bundle again")
