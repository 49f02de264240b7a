"""``garnish.export``: a graph that runs without garnish, checked against the model before anything is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch

from garnish.bundles.given_bundle import given_bundle
from garnish.bundles.named_models import open_model
from garnish.checking.arguments import checked
from garnish.checking.plain_data import Json
from garnish.data.dataset import Dataset
from garnish.errors import BundleError, OptionError
from garnish.exporting.certificate import (
    Certificate,
    compared,
    compared_on,
    holds_for,
    sizes_to_try,
    small_sizes,
)
from garnish.exporting.deployed import Deployed, chosen_tasks, folded_copy, usable_copy
from garnish.exporting.facts import bundle_files_of, decoding_of, manifest_bytes, trunk_facts, versions
from garnish.exporting.fed_export import FedGraph, bundle_name, fed_files
from garnish.exporting.graph import OPSET, least_side, onnx_bytes, program_bytes, require_onnx, to_onnx, traced
from garnish.exporting.own_rounding import check_agreement
from garnish.exporting.picture_input import Input, check_rgb_alone, image_facts, input_dtype, manifest_format
from garnish.exporting.precision import stored_as
from garnish.exporting.running import runner_of
from garnish.files.atomic import present, write_folder, writing
from garnish.files.checksums import SUMS, with_sums
from garnish.files.path_text import given_path
from garnish.files.regular import read_regular
from garnish.model.model import Model
from garnish.page.files import PAGE_FILES, export_page_files
from garnish.registry import plain
from garnish.runtime.manifest import (
    GRAPH,
    IMAGE,
    MANIFEST,
    AdapterFacts,
    ExportedTask,
    ExportFacts,
    Form,
    Precision,
    read_manifest,
)

Source = Model | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
To = Literal["onnx", "torch"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was exported, and how far it is from the model.

    Attributes:
        out: the folder.
        files: names of the files in it.
        bytes: of the graph's file.
        facts: what ``export.json`` holds.
        bundles: of a graph that takes adapters as inputs: name → what ``NAME.json`` holds, of those just exported.
    """

    out: str
    files: tuple[str, ...]
    bytes: int
    facts: ExportFacts
    bundles: Mapping[str, AdapterFacts] = field(default_factory=dict)

    @property
    def certificate(self) -> Certificate:
        """How far the file is from the model, and on which pictures."""
        return cast(Certificate, self.facts["certificate"])


@checked
def export(
    source: Source,
    out: str | os.PathLike[str],
    *,
    adapters: Literal["merged", "inputs"] = "merged",
    to: Literal["onnx", "torch"] = "onnx",
    input: Input | None = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    data: Dataset | None = None,
    weights: str | os.PathLike[str] | None = None,
    tasks: Sequence[str] | None = None,
    page: bool | str | os.PathLike[str] = False,
) -> Exported:
    """Write a graph that runs without garnish: pictures of any number and size in, the raw output of every task out.

    Args:
        source: a model, a bundle's folder, several folders, or the name of a finished model.
        out: a folder: new, empty, or written by this function.
        adapters: "merged": folded into the weights where they fold, constants elsewhere. "inputs": the graph takes
            adapters and heads as inputs, and each bundle is two small files beside it; further bundles of the same
            trunk, methods and heads are added by exporting them to the same folder.
        to: "onnx", or "torch" for a ``.pt2`` program of ``torch.export``.
        input: what the graph takes: "uint8" in 0 … 255, or "float" in [0, 1]; (N, 3, H, W) RGB. Of pictures with other
            bands (N, C, H, W): "uint8" or "uint16" as files hold them, or "float" as ``Bands.values`` gives them, NaN
            where there are no data. None: "uint8" of RGB, "float" of others.
        precision: how the trunk's weights are stored in ONNX; computed in float32 all the same.
        data: pictures with labels, on which the file is compared with the model as well, and both are measured.
        weights: the backbone's weights, if they are no longer at the path in the bundle.
        tasks: which tasks; None: all.
        page: True: a page beside the graph that runs it in a browser, with onnxruntime-web, which npm fetches; a path:
            that of the package ``onnxruntime-web-VERSION.tgz``. False: none, but one that is there stays.

    Raises:
        GarnishError: a model that cannot be traced, or a file that differs from the model by more than a limit (see
            :mod:`garnish.exporting.certificate`); nothing is written then. BundleError: a path that holds something
            else, or no space. OptionError: an unknown task, or options that do not go together. MissingExtraError: a
            package of the extra ``[onnx]`` is not installed, or npm has no onnxruntime-web for the page. DataError:
            a package that is not onnxruntime-web.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> exported = gn.export(model, "exported", to="torch")
        >>> exported.files
        ('model.pt2', 'export.json', 'SHA256SUMS')
    """
    _check_options(adapters, to, precision, tasks)
    if page is not False and to != "onnx":
        raise OptionError(f'export: the page runs ONNX, not to="{to}"; leave one of them out')
    place = _checked_place(out, adapters)
    shown = _page(page, present(place))
    if adapters == "inputs":
        models = _read_apart(source, weights)
        for model in models.values():
            check_rgb_alone(model, "adapters='inputs'", "leave it out")
        dtype = input_dtype(input, next(iter(models.values())), ())
        return _export_fed(models, out, place, dtype, precision, data, shown)
    given = _read(source, weights)
    names = chosen_tasks(given, tasks)
    dtype = input_dtype(input, given, names)
    if shown:
        check_rgb_alone(given, "the page", "export to a folder without one")
    decodings = {task: decoding_of(task, given.tasks[task]) for task in names}
    reference = usable_copy(given)
    named = {task: f"{task}_output" if task == IMAGE else task for task in names}
    graph, least, certificate = _made(reference, names, list(named.values()), to, dtype, precision, data)
    image = image_facts(dtype, least, given.bands_of(names[0]))
    facts: ExportFacts = {
        "format": manifest_format(image),
        "form": "merged",
        "to": to,
        "precision": precision,
        "versions": versions(to),
        "backbone": trunk_facts(reference),
        "image": image,
        "tasks": {
            task: ExportedTask(output=name, channels=given.tasks[task].channels, decoding=decodings[task])
            for task, name in named.items()
        },
        "outputs": list(named.values()),
        "inputs": {},
        "sha256": hashlib.sha256(graph).hexdigest(),
        "certificate": cast(dict[str, Json], plain(certificate, finite=True)),
    }
    if to == "onnx":
        facts["opset"] = OPSET
    files = with_sums({GRAPH[to]: graph, MANIFEST: manifest_bytes(facts), **shown})
    with writing(f"{out}:", " or choose another place; what was there before is untouched"):
        write_folder(place, files)
        for name in set(GRAPH.values()) - set(files):  # of an earlier export to the same folder
            (place / name).unlink(missing_ok=True)
    return Exported(out=str(out), files=(GRAPH[to], MANIFEST, *shown, SUMS), bytes=len(graph), facts=facts)


def _made(
    reference: Model,
    tasks: Sequence[str],
    outputs: Sequence[str],
    to: To,
    dtype: torch.dtype,
    precision: Precision,
    data: Dataset | None,
) -> tuple[bytes, int, Certificate]:
    """The graph's file, the smallest side of a picture that it takes, and how far it is from the model.

    The graph is checked in float32 in any case, so that a fault of it never passes for one of rounding.
    """
    trunk, sizes, least = reference.backbone, sizes_to_try(reference.backbone), least_side(reference.backbone)
    folded = folded_copy(reference, tasks)
    bands = reference.bands_of(tasks[0])
    program = traced(Deployed(folded, tasks), trunk, dtype, channels=len(bands.names))
    proto = None if to == "torch" else to_onnx(program, outputs, folded.all_tensors())
    graph = program_bytes(program) if proto is None else onnx_bytes(proto)
    run = runner_of(graph, to)
    # a program refuses smaller pictures by itself
    if proto is not None and holds_for(reference, run, tasks, small_sizes(trunk), dtype):
        sizes, least = [*sizes, *small_sizes(trunk)], 1
    certificate = compared(reference, run, tasks, sizes, dtype)
    check_agreement(reference, certificate, "fp32", dtype, "export")
    if proto is not None and precision != "fp32":
        graph = onnx_bytes(stored_as(proto, precision, folded.backbone.frozen_tensors()))
        run = runner_of(graph, to)
        certificate = compared(reference, run, tasks, sizes, dtype)
    if data is not None:
        certificate["data"] = compared_on(reference, run, tasks, data, dtype)
    check_agreement(reference, certificate, precision, dtype, "export")
    return graph, least, certificate


def _export_fed(
    models: Mapping[str, Model],
    out: str | os.PathLike[str],
    place: Path,
    dtype: torch.dtype,
    precision: Precision,
    data: Dataset | None,
    shown: Mapping[str, bytes],
) -> Exported:
    """Write a graph that takes adapters and heads as inputs, or keep the one that is there, and bundles beside it."""
    there = FedGraph.read(present(place)) if (present(place) / MANIFEST).is_file() else None
    if there is not None:
        there.check_same(str(out), dtype, precision)
    references = {name: usable_copy(model) for name, model in models.items()}
    files, facts, described = fed_files(references, there, dtype, precision, data)
    files |= shown
    kept = {} if there is None else {**there.files(), **bundle_files_of(present(place))}
    with writing(f"{out}:", " or choose another place; what was there before is untouched"):
        write_folder(place, with_sums({**kept, **files}))  # all of it, so that the graph is never without a file
    size = len(files.get(GRAPH["onnx"], b"" if there is None else there.data))
    return Exported(out=str(out), files=(*files, SUMS), bytes=size, facts=facts, bundles=described)


def _check_options(adapters: str, to: str, precision: str, tasks: Sequence[str] | None) -> None:
    """Raise for options that do not go together, or without the packages that they need."""
    if adapters == "inputs" and to != "onnx":
        raise OptionError(f'export: adapters="inputs" is of onnxruntime, to="{to}" takes none; leave to out')
    if adapters == "inputs" and tasks is not None:
        raise OptionError('export: a graph with adapters="inputs" has an output for every task; leave tasks out')
    if to == "torch" and precision != "fp32":
        raise OptionError(f'export: precision="{precision}" is of onnxruntime; leave it out, or use to="onnx"')
    if to == "onnx":
        require_onnx()


def _checked_place(out: str | os.PathLike[str], form: Form) -> Path:
    """The folder to write to; raises BundleError if it cannot be written, or holds more than an export of this form."""
    place = given_path(out, "export: out")
    above = next((parent for parent in place.resolve().parents if parent.exists()), place)  # before minutes of work
    if not above.is_dir():
        raise BundleError(f"{out}: {above} is a file; choose a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise BundleError(f"{out}: {above} cannot be written to; choose another place")
    there = present(place)
    if not there.exists() or (there.is_dir() and not any(there.iterdir())):
        return place
    if not (there / MANIFEST).is_file():
        raise BundleError(f"{out}: exists and was not written by export, so it is not replaced; choose another folder")
    held = read_manifest(there)["form"]
    if held != form:
        raise BundleError(f'{out}: holds an export with adapters="{held}", not "{form}"; choose another folder')
    own = {*GRAPH.values(), MANIFEST, SUMS, *PAGE_FILES, *(bundle_files_of(there) if form == "inputs" else ())}
    if others := sorted({entry.name for entry in there.iterdir()} - own):
        raise BundleError(f"{out}: holds {others[0]} beside an export; choose another folder")
    return place


def _page(page: bool | str | os.PathLike[str], there: Path) -> dict[str, bytes]:
    """The files of the page: new ones, or those that an earlier export has left there."""
    if page is False:
        return {name: read_regular(there / name, 2**28) for name in PAGE_FILES if (there / name).is_file()}
    return export_page_files(None if page is True else page)


def _read_apart(source: Source, weights: str | os.PathLike[str] | None) -> dict[str, Model]:
    """Name → model of every bundle; a model that is no bundle is named "model".

    Raises:
        OptionError: two of one name, or a name that is no plain one.
    """
    if isinstance(source, Model):
        return {"model": _read(source, weights)}
    paths = [source] if isinstance(source, str | os.PathLike) else list(source)
    named: dict[str, str] = {}
    for path in [os.fspath(given_bundle(path)) for path in paths]:
        name = bundle_name(path)
        if alike := next((other for other in named if other.lower() == name.lower()), None):  # some disks know no case
            raise OptionError(f"export: {named[alike]} and {path} would both be named {name!r}; rename one")
        named[name] = path
    return {name: _read(path, weights) for name, path in named.items()}


def _read(source: Source, weights: str | os.PathLike[str] | None) -> Model:
    if isinstance(source, Model):
        if weights is not None:
            raise OptionError("export: a model has its weights; weights= goes with a bundle's folder")
        return source
    paths = [source] if isinstance(source, str | os.PathLike) else list(source)
    return open_model([os.fspath(path) for path in paths], None if weights is None else os.fspath(weights))
