"""``bundle.json``: its schema, and reading it with validation. Nothing here needs torch.

:class:`BundleFacts` is the schema. ``SHA256SUMS`` next to it lists both files of a bundle
(:mod:`garnish.files.checksums`); bundles of older versions do not have it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from garnish.checking.plain_data import Json, Reading, matching, read_as
from garnish.errors import BundleError, shown
from garnish.files.atomic import present
from garnish.files.path_text import given_path
from garnish.files.strict_json import read_json
from garnish.hub.address import hub_hint
from garnish.registry import SpecFacts

FORMAT = 1
#: Of bundles whose pictures have bands of their own, which readers of format 1 would take for RGB.
FORMAT_OF_BANDS = 2
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
#: Of a program; only the form is checked, so that bundles of all versions are read.
_Version = Annotated[str, matching(r"[\w.+!~-]{1,100}")]
#: A path or an id of a Hub; no path that a system knows is longer.
_Source = Annotated[str, matching(r"[^\x00-\x1f\x7f]{1,4096}")]

#: Most tasks of a bundle, methods of an owner, values in a method's, task's or head's options: far above what anybody
#: trains, and few enough to be built in seconds.
MOST_TASKS, MOST_METHODS, MOST_OPTIONS = 2000, 32, 4096
#: Most values in a description, and characters of a text in it; neither counts for what the caller of save added.
_MOST_VALUES, _MOST_TEXT = 500_000, 2**16


class BackboneFacts(SpecFacts):
    """Which backbone a file belongs to."""

    taps: NotRequired[Literal["stage", "merged"]]  # "stage" if absent
    fingerprint: _Hex64
    licence: str
    weights_source: _Source


class _BackboneFacts(BackboneFacts):
    non_commercial: bool


class _OwnerFacts(TypedDict):
    tasks: list[TaskName]
    methods: list[SpecFacts]  # the tasks share their tensors
    pictures: NotRequired[dict[str, Json]]  # garnish.pictures.given_bands.GivenBands; 8-bit RGB if absent


class _TaskFacts(SpecFacts):
    head: SpecFacts
    channels: int
    labels: list[str]  # in the order of their ids
    palette: dict[str, list[int]]  # label → RGB in 0 … 255; empty for continuous maps


class Preprocessing(TypedDict):
    """How pictures become the input of the backbone."""

    input: str  # "RGB in [0,1]", then mean and std, then padding to multiple pixels
    mean: list[float]
    std: list[float]
    multiple: int


class _Sizes(TypedDict):
    weights_bytes: int
    encoder_parameters: int
    decoder_parameters: int


class BundleFacts(TypedDict):
    """``bundle.json`` of formats 1 and 2; keys that are ``NotRequired`` may be absent."""

    format: int
    versions: dict[str, _Version]  # of the garnish, torch and timm that wrote it
    dtype: Literal["float16", "float32"]  # of the floating-point tensors
    #: How ``tuned.*`` tensors are stored: as the difference to the frozen parameter of that name (float16), or as the
    #: value itself (float32, since adding a rounded difference may not restore the value exactly).
    tuned_as: Literal["difference", "value"]
    backbone: _BackboneFacts
    owners: list[_OwnerFacts]  # in order
    tasks: dict[str, _TaskFacts]
    decoders: NotRequired[list[list[TaskName]]]  # tasks that share one, in the order it was built for
    preprocessing: Preprocessing
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
    if found["format"] not in (FORMAT, FORMAT_OF_BANDS):
        raise BundleError(
            f"{file}: has format {found['format']}, this garnish reads {FORMAT} and {FORMAT_OF_BANDS}; install a newer"
            " one"
        )
    return as_bundle_facts(found, str(file))


def as_bundle_facts(found: Mapping[str, Json], file: str) -> BundleFacts:
    """What a description of this format holds, validated by itself; ``file`` is its place, for messages.

    Raises:
        BundleError: a missing, unknown or odd entry, or more of them than a bundle can have.
    """
    _check_amounts(found, file)
    facts: BundleFacts = read_as(dict(found), BundleFacts, "", replace(FACTS, file=f"{file}: "))
    check_is_architecture(file, facts["backbone"]["name"])
    _check_tasks(facts, file)
    _check_counts(facts, file)
    own = any("pictures" in owner for owner in facts["owners"])
    if (facts["format"] == FORMAT_OF_BANDS) != own:
        told = (
            "has no pictures of other bands, and here are some" if own else "has pictures of other bands, here are none"
        )
        raise BundleError(f"{file}: format {facts['format']} {told}; save the bundle again")
    return facts


def check_is_architecture(where: str, name: str) -> None:
    """Raise BundleError for a backbone that is named by an id of a Hub: a description has its architecture's name."""
    if "/" in name or ":" in name:
        raise BundleError(f"{where}: backbone: {shown(name)} is not the name of an architecture; save the bundle again")


def bundle_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of an existing bundle; raises :class:`BundleError` if there is none."""
    folder = present(given_path(path, "bundle", BundleError))
    if not folder.exists():
        on_hub = hub_hint(path)
        raise BundleError(f"{path}: no such bundle; give a folder that model.save or garnish train wrote{on_hub}")
    if not (folder / DESCRIPTION).is_file():
        given = Path(path)
        near = [p for p in (given / BEST, given.parent) if (p.expanduser() / DESCRIPTION).is_file()]
        meant = f"did you mean {near[0]}?" if near else "give a folder that model.save or garnish train wrote"
        if (folder / "export.json").is_file():  # which is garnish.runtime.manifest's, of a room above this one
            meant = "it is an exported graph: python -m garnish.runtime predicts from it"
        if folder.suffix in (".ckpt", ".pt", ".pth") and folder.is_file():
            meant = "load a trainer's checkpoint into the module that wrote it, then model.save(folder), and give that"
        if (folder / "adapter_config.json").is_file():  # which is garnish.bundles.peft's, above this file
            meant = "it is an adapter in PEFT's format: gn.import_peft or garnish peft import reads it"
        what = f"it holds no {DESCRIPTION}" if folder.is_dir() else "it is a file"
        raise BundleError(f"{path}: is not a bundle ({what}); {meant}")
    return folder


def bundle_of_run(path: str | os.PathLike[str], what: str) -> Path:
    """A bundle's folder as it is given, there or not; of a run's folder, its best. ``what`` is for messages."""
    folder = given_path(path, what, BundleError)
    best = folder / BEST
    return best if not (folder / DESCRIPTION).is_file() and (best / DESCRIPTION).is_file() else folder


def _check_tasks(found: BundleFacts, file: str) -> None:
    owned = Counter(task for owner in found["owners"] for task in owner["tasks"])
    for task, times in owned.items():
        if task not in found["tasks"] or times > 1:
            raise BundleError(f"{file}: task {task!r} is not described once and owned once; save the bundle again")
    for task in found["tasks"]:
        if task not in owned:
            raise BundleError(f"{file}: task {task!r} has no owner; save the bundle again")
    sharing = Counter(task for group in found.get("decoders", ()) for task in group)
    for task, times in sharing.items():
        if task not in owned or times > 1:
            raise BundleError(f"{file}: decoders: task {task!r} is unknown or named twice; save the bundle again")
    if not all(found.get("decoders", ())):
        raise BundleError(f"{file}: decoders: one has no task; save the bundle again")
    for key, measured in (("metrics", found["metrics"]), ("metrics_rounding", found.get("metrics_rounding", {}))):
        if odd := [task for task in measured if task not in owned]:
            raise BundleError(f"{file}: {key}: there is no task {shown(odd[0])}; save the bundle again")
    if not owned or not all(owner["tasks"] for owner in found["owners"]):
        raise BundleError(f"{file}: has an owner without tasks; save the bundle again")


def _check_amounts(found: Mapping[str, Json], file: str) -> None:
    """Raise unless values and texts are so few and so short that they are read in a moment."""
    values = 0
    ahead: list[Json] = [value for key, value in found.items() if key != "extra"]
    while ahead:
        value = ahead.pop()
        values += 1
        if isinstance(value, dict):
            ahead += [*value, *value.values()]
        elif isinstance(value, list):
            ahead += value
        elif isinstance(value, str) and len(value) > _MOST_TEXT:
            raise BundleError(f"{file}: a text of {len(value):,} characters ({shown(value, 30)}) is no description")
        if values + len(ahead) > _MOST_VALUES:
            raise BundleError(f"{file}: more than {_MOST_VALUES:,} values are no description; save the bundle again")


def _check_counts(found: BundleFacts, file: str) -> None:
    """Raise for more than a model is built of, before anything is built."""

    def check(at: str, count: int, most: int, what: str) -> None:
        if count > most:
            raise BundleError(f"{file}: {at}: {count:,} {what} are more than the {most:,} that a bundle can have")

    def check_spec(at: str, spec: SpecFacts) -> None:
        check(f"{at}.options", _values(spec["options"].values()), MOST_OPTIONS, "values")

    check("tasks", len(found["tasks"]), MOST_TASKS, "tasks")
    check("versions", len(found["versions"]), MOST_METHODS, "versions")
    check_spec("backbone", found["backbone"])
    for number, owner in enumerate(found["owners"]):
        check(f"owners[{number}].methods", len(owner["methods"]), MOST_METHODS, "methods")
        for place, method in enumerate(owner["methods"]):
            check_spec(f"owners[{number}].methods[{place}]", method)
    for name, task in found["tasks"].items():
        check_spec(f"tasks.{name}", task)
        check_spec(f"tasks.{name}.head", task["head"])


def _values(given: Iterable[Json]) -> int:
    """How many values there are, at all depths."""
    count, ahead = 0, list(given)
    while ahead:
        value = ahead.pop()
        count += 1
        ahead += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return count
