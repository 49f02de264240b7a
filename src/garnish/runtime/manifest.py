"""What an exported folder says of itself: ``export.json`` of its graph, ``NAME.json`` of a bundle for that graph.

Written by :mod:`garnish.exporting`, read by the runtime. Nothing here needs torch.

Shape letters: N pictures, C channels, H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from garnish.bundles.bundle_json import FACTS, BackboneFacts, TaskName
from garnish.checking.plain_data import Json, integers, matching, read_as
from garnish.errors import BundleError
from garnish.files.strict_json import read_json
from garnish.pictures.bands import Bands
from garnish.registry import SpecFacts

FORMAT = 1
#: Of graphs whose pictures have bands of their own, which readers of format 1 would take for RGB.
FORMAT_OF_BANDS = 2
MANIFEST = "export.json"
#: The graph's file, by what it was exported to.
GRAPH: Mapping[str, str] = {"onnx": "model.onnx", "torch": "model.pt2"}
#: Name of the graph's input: (N, 3, H, W) RGB, or (N, C, H, W) of other bands.
IMAGE = "image"
#: Ending of a bundle's tensors, in onnxruntime's own format.
ADAPTER = ".onnx_adapter"
#: Files of a folder that a bundle's manifest cannot be: the graph's, and the colours of its page.
_TAKEN = {MANIFEST, "colours.json"}
#: What the names of bundles beside a graph may be.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

Form = Literal["merged", "inputs"]
Precision = Literal["fp32", "fp16", "int8"]
_Hex64 = Annotated[str, matching("[0-9a-f]{64}")]
_Count = Annotated[int, integers(0, 2**31)]
_Text = Annotated[str, matching(r"[^\x00-\x1f\x7f]{1,4096}")]


class ExportedTask(TypedDict):
    """One task: which output of the graph is its raw map (N, C, H, W) float32, and how that is decoded."""

    output: _Text
    channels: _Count
    decoding: SpecFacts  # of garnish.decodings


class ExportedTrunk(BackboneFacts):
    """The trunk inside the graph; whether its weights may be used commercially."""

    non_commercial: bool


class InputFacts(TypedDict):
    """An input of the graph beside the picture; a side that differs between bundles has a name, not a number."""

    dtype: Literal["float32"]
    shape: list[_Count | _Text]


class AdapterTensor(TypedDict):
    """A tensor of a bundle, for an input of the graph."""

    dtype: Literal["float32"]
    shape: list[_Count]


class ImageFacts(TypedDict):
    """The picture that the graph takes: uint8 in 0 … 255, or float32 in 0 … 1; padded and normalised inside.

    Of other bands than RGB: uint8 or uint16 as files hold them, or float32 as ``Bands.values`` gives them.
    """

    dtype: Literal["uint8", "uint16", "float32"]
    least: _Count  # pixels of the smallest side
    bands: NotRequired[dict[str, Json]]  # garnish.pictures.bands.Bands, in the order of the channels; RGB if absent


class ExportFacts(TypedDict):
    """``export.json`` of formats 1 and 2."""

    format: int
    form: Form
    to: Literal["onnx", "torch"]
    precision: Precision
    opset: NotRequired[_Count]  # of ONNX
    versions: dict[str, _Text]
    backbone: ExportedTrunk
    image: ImageFacts
    tasks: dict[TaskName, ExportedTask]  # of form "inputs" none: its bundles name theirs
    outputs: list[_Text]  # of the graph, in order
    inputs: dict[str, InputFacts]  # of form "inputs": adapter and head tensors; else none
    #: What inputs that are not given stand for: nothing, as zeros or as new adapters begin; "none": give all of them.
    no_adapter: NotRequired[Literal["zeros", "start", "none"]]
    sha256: _Hex64  # of the graph's file
    certificate: dict[str, Json]  # how far the file is from the model, and on which pictures


class AdapterFacts(TypedDict):
    """``NAME.json``: a bundle whose tensors a graph of form "inputs" takes."""

    format: int
    graph: _Hex64  # sha256 of the graph's file
    backbone: ExportedTrunk
    tasks: dict[TaskName, ExportedTask]
    tensors: dict[str, AdapterTensor]
    sha256: _Hex64  # of NAME.onnx_adapter
    certificate: dict[str, Json]


def is_bundle_name(name: str) -> bool:
    """Whether a bundle beside a graph may have this name: its files are NAME.json and NAME.onnx_adapter."""
    return bool(re.fullmatch(_NAME, name)) and f"{name}.json".lower() not in _TAKEN  # some disks know no case


def is_bundle(folder: Path, name: str) -> bool:
    """Whether a bundle of this name lies beside a graph, with both of its files."""
    return is_bundle_name(name) and all((folder / f"{name}{ending}").is_file() for ending in (".json", ADAPTER))


def bundle_names(folder: Path) -> tuple[str, ...]:
    """Names of the bundles that lie beside a graph now."""
    found = (file.name.removesuffix(ADAPTER) for file in folder.glob(f"*{ADAPTER}"))
    return tuple(sorted(name for name in found if is_bundle(folder, name)))


def read_manifest(folder: Path) -> ExportFacts:
    """Read and validate ``export.json``.

    Raises:
        BundleError: not an exported folder, damaged, or of another format.
    """
    file = folder / MANIFEST
    facts: ExportFacts = read_as(_formatted(file, summed=True), ExportFacts, "", replace(FACTS, file=f"{file}: "))
    told = "bands" in facts["image"]
    if (facts["format"] == FORMAT_OF_BANDS) != told or (told and facts["form"] != "merged"):
        raise BundleError(
            f"{file}: format {facts['format']} and image.bands do not go together; export the bundle again"
        )
    if not told and facts["image"]["dtype"] == "uint16":
        raise BundleError(f"{file}: image.dtype: RGB has 8 bits, not uint16; export the bundle again")
    return facts


def bands_of(facts: ExportFacts, file: Path) -> Bands:
    """The bands of the pictures that a graph takes; raises :class:`BundleError`, naming ``file``, for odd ones."""
    told = facts["image"].get("bands")
    return Bands() if told is None else Bands.read(told, f"{file}: image.bands", BundleError)


def read_adapter_facts(file: Path) -> AdapterFacts:
    """Read and validate the ``NAME.json`` of a bundle, which may have been put into its folder after the others.

    Raises:
        BundleError: as :func:`read_manifest`.
    """
    facts: AdapterFacts = read_as(
        _formatted(file, summed="if listed"), AdapterFacts, "", replace(FACTS, file=f"{file}: ")
    )
    return facts


def _formatted(file: Path, *, summed: bool | Literal["if listed"]) -> dict[str, Json]:
    found = read_json(file, "manifest", "export the bundle again", summed=summed)
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise BundleError(f"{file}: is no manifest of an export (it has no format number); give another folder")
    if found["format"] not in (FORMAT, FORMAT_OF_BANDS):
        raise BundleError(
            f"{file}: has format {found['format']}, this garnish reads {FORMAT} and {FORMAT_OF_BANDS}; install a newer"
            " one"
        )
    return found
