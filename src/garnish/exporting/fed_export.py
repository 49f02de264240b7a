"""Exports whose graph takes adapters and heads as inputs: the graph once, and two small files a bundle beside it.

Each bundle is run through the runtime, from the files that are to be written, and compared with its model.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor

from garnish.checking.plain_data import Json
from garnish.data.dataset import Dataset
from garnish.errors import BundleError, OptionError
from garnish.exporting.certificate import (
    Certificate,
    compared,
    compared_on,
    holds_for,
    pictures,
    sizes_to_try,
    small_sizes,
)
from garnish.exporting.facts import decoding_of, manifest_bytes, trunk_facts, versions
from garnish.exporting.fed_graph import fed_graph, input_facts, misfit, output_names, with_defaults
from garnish.exporting.graph import OPSET, least_side, onnx_bytes
from garnish.exporting.no_adapter import no_adapter
from garnish.exporting.own_rounding import check_agreement
from garnish.exporting.precision import stored_as
from garnish.exporting.running import Runner
from garnish.exporting.slots import own_slots
from garnish.files.regular import read_regular
from garnish.hub.address import cached_address
from garnish.model.model import Model
from garnish.registry import plain
from garnish.runtime.graph import MOST_GRAPH
from garnish.runtime.manifest import (
    ADAPTER,
    FORMAT,
    GRAPH,
    MANIFEST,
    AdapterFacts,
    AdapterTensor,
    ExportedTask,
    ExportFacts,
    Precision,
    is_bundle_name,
    read_manifest,
)
from garnish.runtime.session import Session

_FILE = GRAPH["onnx"]


@final
@dataclass(frozen=True)
class FedGraph:
    """A graph that takes adapters, and what its manifest says.

    Attributes:
        data: the bytes of its file.
        facts: its manifest.
    """

    data: bytes
    facts: ExportFacts

    @classmethod
    def read(cls, folder: Path) -> FedGraph:
        """The graph of a folder that was exported before; raises BundleError for a damaged one."""
        facts = read_manifest(folder)
        data = read_regular(folder / _FILE, MOST_GRAPH)
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise BundleError(f"{folder / _FILE}: is not the graph of its manifest; export to another folder")
        return cls(data, facts)

    @classmethod
    def of(cls, model: Model, dtype: torch.dtype) -> FedGraph:
        """The float32 graph of a :func:`~garnish.exporting.deployed.plain_copy`; raises as :func:`fed_graph`."""
        proto = fed_graph(model, dtype)
        inputs = input_facts(proto)
        slots = own_slots(model)
        values, kind = no_adapter(model, slots, pictures(2, 97, 131, 0, torch.float32))
        named = {slot.name: value for slot, value in zip(slots, values, strict=True)}
        data = onnx_bytes(with_defaults(proto, named))
        facts: ExportFacts = {
            "format": FORMAT,
            "form": "inputs",
            "to": "onnx",
            "precision": "fp32",
            "opset": OPSET,
            "versions": versions("onnx"),
            "backbone": trunk_facts(model),
            "image": {"dtype": "uint8" if dtype == torch.uint8 else "float32", "least": 1},
            "tasks": {},
            "outputs": output_names(len(model.tasks)),
            "inputs": inputs,
            "no_adapter": kind,
            "sha256": hashlib.sha256(data).hexdigest(),
            "certificate": {},
        }
        return cls(data, facts)

    def stored(self, precision: Precision, weights: Iterable[str]) -> FedGraph:
        """The same with the trunk's weights, of these names, stored in another precision."""
        import onnx

        data = onnx_bytes(stored_as(onnx.load_from_string(self.data), precision, weights))
        sha256 = hashlib.sha256(data).hexdigest()
        return FedGraph(data, {**self.facts, "precision": precision, "sha256": sha256})

    def with_least(self, least: int) -> FedGraph:
        """The same for pictures whose smaller side has at least so many pixels."""
        return replace(self, facts={**self.facts, "image": {**self.facts["image"], "least": least}})

    def check_same(self, where: str, dtype: torch.dtype, precision: Precision) -> None:
        """Raise BundleError unless it was exported with these options."""
        kind = "float" if self.facts["image"]["dtype"] == "float32" else "uint8"
        asked = "float" if dtype == torch.float32 else "uint8"
        if (kind, self.facts["precision"]) != (asked, precision):
            raise BundleError(
                f"{where}: its graph has input {kind} and precision {self.facts['precision']}, not {asked} and"
                f" {precision}; give these, or choose another folder"
            )

    def files(self) -> dict[str, bytes]:
        """Its files by name."""
        return {_FILE: self.data, MANIFEST: manifest_bytes(self.facts)}


@final
class _Fed(Runner):
    """A bundle of an exported folder, in the runtime."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """See :class:`Runner`."""
        found = self._session.outputs(images.numpy(), self._name)
        return tuple(torch.from_numpy(out) for out in found.values())


def fed_files(
    models: Mapping[str, Model],
    there: FedGraph | None,
    dtype: torch.dtype,
    precision: Precision,
    data: Dataset | None,
) -> tuple[dict[str, bytes], ExportFacts, dict[str, AdapterFacts]]:
    """The files to write for some bundles: theirs, and the graph if it is new.

    Args:
        models: name of a bundle → its model, of :func:`garnish.exporting.deployed.plain_copy`.
        there: the graph of the folder; None: it is made of the first model.
        dtype: of the pictures, uint8 or float32.
        precision: of the trunk.
        data: pictures with labels on which the bundles are compared as well.

    Returns:
        File name → bytes, the graph's manifest, and that of every bundle by name.

    Raises:
        GarnishError: a bundle that is not of this graph, or differs from its model by more than a limit.
    """
    files: dict[str, bytes] = {}
    described: dict[str, AdapterFacts] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        graph = _new_graph(folder, *next(iter(models.items())), dtype, precision) if there is None else there
        session = _opened(folder, graph)
        for name, model in models.items():
            facts = _written(folder, graph.facts, name, model)
            certificate = _certificate(session, name, model)
            if data is not None:
                certificate["data"] = compared_on(model, _Fed(session, name), list(model.tasks), data, torch.uint8)
            check_agreement(model, certificate, graph.facts["precision"], torch.uint8, f"export: {name}")
            facts["certificate"] = cast(dict[str, Json], plain(certificate, finite=True))
            described[name] = facts
            files[f"{name}.json"] = manifest_bytes(facts)
            files[f"{name}{ADAPTER}"] = (folder / f"{name}{ADAPTER}").read_bytes()
    return (files if there is not None else {**graph.files(), **files}), graph.facts, described


def _new_graph(folder: Path, name: str, model: Model, dtype: torch.dtype, precision: Precision) -> FedGraph:
    """The graph of a bundle, for pictures from the smallest on at which it agrees with the model.

    It is compared in float32 in any case, so that a fault of it never passes for one of rounding.
    """
    graph = FedGraph.of(model, dtype)
    session = _opened(folder, graph)
    _written(folder, graph.facts, name, model)
    if not holds_for(model, _Fed(session, name), list(model.tasks), small_sizes(model.backbone), torch.uint8):
        graph = graph.with_least(least_side(model.backbone))
    if precision == "fp32":
        return graph
    certificate = _certificate(_opened(folder, graph), name, model)
    check_agreement(model, certificate, "fp32", torch.uint8, f"export: {name}")
    return graph.stored(precision, model.backbone.frozen_tensors())


def _opened(folder: Path, graph: FedGraph) -> Session:
    """Write a graph to a folder that nobody else sees, and open it."""
    for file, content in graph.files().items():
        (folder / file).write_bytes(content)
    return Session(folder)


def _certificate(session: Session, name: str, model: Model) -> Certificate:
    """How far a bundle in the runtime is from its model, on pictures of every size that its graph takes."""
    sizes = sizes_to_try(model.backbone)
    if session.facts["image"]["least"] == 1:
        sizes = [*sizes, *small_sizes(model.backbone)]
    return compared(model, _Fed(session, name), list(model.tasks), sizes, torch.uint8)


def _written(folder: Path, facts: ExportFacts, name: str, model: Model) -> AdapterFacts:
    """Write a bundle's two files, still without a certificate, beside the graph of these facts."""
    values = {slot.name: slot.value for slot in own_slots(model)}
    trunk = trunk_facts(model)
    if trunk["fingerprint"] != facts["backbone"]["fingerprint"]:
        raise BundleError(f"export: {name}: belongs to another trunk than the graph; export it to another folder")
    if len(model.tasks) != len(facts["outputs"]):
        raise BundleError(
            f"export: {name}: has {len(model.tasks)} tasks, the graph {len(facts['outputs'])} outputs; export it to"
            " another folder"
        )
    if odd := misfit(facts["inputs"], {key: value.shape for key, value in values.items()}):
        raise BundleError(f"export: {name}: is not of this graph ({odd}); export it to another folder")
    own = {key: values[key].float().contiguous().numpy() for key in facts["inputs"]}
    _write_adapter(folder / f"{name}{ADAPTER}", own)
    tensors: dict[str, AdapterTensor] = {key: {"dtype": "float32", "shape": list(v.shape)} for key, v in own.items()}
    described: AdapterFacts = {
        "format": FORMAT,
        "graph": facts["sha256"],
        "backbone": trunk,
        "tasks": {
            task: ExportedTask(output=output, channels=spec.channels, decoding=decoding_of(task, spec))
            for (task, spec), output in zip(model.tasks.items(), facts["outputs"], strict=True)
        },
        "tensors": tensors,
        "sha256": hashlib.sha256((folder / f"{name}{ADAPTER}").read_bytes()).hexdigest(),
        "certificate": {},
    }
    (folder / f"{name}.json").write_bytes(manifest_bytes(described))
    return described


def _write_adapter(file: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors in onnxruntime's format of adapters."""
    import onnxruntime

    made = onnxruntime.AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(1)
    made.set_parameters({key: onnxruntime.OrtValue.ortvalue_from_numpy(value) for key, value in tensors.items()})
    made.export_adapter(str(file))


def bundle_name(path: str) -> str:
    """The name of a bundle beside a graph: that of its folder; of a run's ``best``, the run's; of the Hub's, its own.

    Raises:
        OptionError: it is no plain name.
    """
    folder = Path(path).absolute()
    fetched = cached_address(folder)
    name = fetched.name if fetched is not None else folder.parent.name if folder.name == "best" else folder.name
    if not is_bundle_name(name):
        raise OptionError(
            f"export: {path}: a bundle beside a graph is named as its folder, and {name!r} is no plain name; rename it"
        )
    return name
