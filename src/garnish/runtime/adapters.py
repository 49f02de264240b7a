"""Bundles whose tensors a graph takes as inputs: two small files each beside it, loaded once and kept.

A bundle is there as soon as its files are, ``NAME.json`` and ``NAME.onnx_adapter``.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from garnish.errors import BundleError, OptionError, one_line, shown, suggest
from garnish.files.atomic import present, read_present
from garnish.files.regular import read_regular
from garnish.runtime.decoded_tasks import TaskOutput, task_outputs
from garnish.runtime.graph import Graph
from garnish.runtime.manifest import (
    ADAPTER,
    AdapterFacts,
    ExportFacts,
    bundle_names,
    is_bundle,
    read_adapter_facts,
)

#: Largest file of adapter tensors that is read, bytes.
_MOST_ADAPTER = 2**31
_AGAIN = "export it again for this graph"


@final
@dataclass(frozen=True)
class LoadedBundle:
    """What one bundle adds to a graph.

    Attributes:
        tasks: its tasks, in order.
        adapter: onnxruntime's handle of its tensors; None where they are in the graph.
    """

    tasks: dict[str, TaskOutput]
    adapter: Any = None


@final
class Adapters:
    """The bundles beside a graph of form "inputs". Threads may ask for any; each is loaded once, by one of them."""

    def __init__(self, folder: Path, graph: Graph) -> None:
        self._folder = folder
        self._graph = graph
        self._loaded: dict[str, LoadedBundle] = {}
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def names(self) -> tuple[str, ...]:
        """Names of the bundles that lie beside the graph now."""
        return bundle_names(present(self._folder))

    def get(self, name: str | None) -> LoadedBundle:
        """A bundle; None: the only one.

        Raises:
            OptionError: no such bundle, or several and none named. BundleError: it is damaged, or of another graph.
        """
        if name is not None and (found := self._loaded.get(name)):
            return found
        return read_present(self._folder, lambda there: self._find(there, name))

    def drop(self, name: str) -> None:
        """Forget a bundle; who holds it keeps it."""
        self._loaded.pop(name, None)

    def _find(self, folder: Path, name: str | None) -> LoadedBundle:
        """:meth:`get` from the folder as it is now, which an export may be replacing."""
        if name is None:
            known = bundle_names(folder)
            if len(known) != 1:
                held = f"there are {', '.join(known)}; name one" if known else "there is none; export one for it"
                raise OptionError(f"{self._folder}: which bundle? {held}")
            name = known[0]
        if not is_bundle(folder, name):
            raise OptionError(f"{self._folder}: no bundle {shown(name)}{suggest(name, bundle_names(folder))}")
        with self._lock:
            own = self._loading.setdefault(name, threading.Lock())
        with own:  # others load other bundles meanwhile
            found = self._loaded.get(name)
            if found is None:
                found = self._loaded[name] = self._load(folder, name)
            return found

    def _load(self, folder: Path, name: str) -> LoadedBundle:
        description, file = (folder / f"{name}{ending}" for ending in (".json", ADAPTER))
        facts = read_adapter_facts(description)
        graph = self._graph.facts
        if facts["graph"] != graph["sha256"]:
            raise BundleError(f"{description}: was exported for another graph than {self._graph.file}; {_AGAIN}")
        if facts["backbone"]["fingerprint"] != graph["backbone"]["fingerprint"]:
            raise BundleError(f"{description}: was trained on another trunk than that of {self._graph.file}; {_AGAIN}")
        _check_inputs(facts, graph, description)
        try:
            data = read_regular(file, _MOST_ADAPTER)
        except OSError as error:
            raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}); {_AGAIN}") from error
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise BundleError(
                f"{file}: is not the one that {description.name} describes (their SHA-256 differ); {_AGAIN}"
            )
        adapter, held = self._graph.adapter(file, data)
        stated = {name: ("tensor(float)", tuple(tensor["shape"])) for name, tensor in facts["tensors"].items()}
        if held != stated:
            odd = next(n for n in (*stated, *held) if stated.get(n) != held.get(n))
            raise BundleError(f"{file}: tensor {shown(odd)} is not as {description.name} describes it; {_AGAIN}")
        return LoadedBundle(task_outputs(facts["tasks"], graph["outputs"], description), adapter)


def _check_inputs(facts: AdapterFacts, graph: ExportFacts, file: Path) -> None:
    """Raise BundleError for a tensor that the graph does not take, or not in this shape, or that has to be given."""
    open_sides: dict[str, tuple[str, int]] = {}  # name of a side → the tensor that has it, and its size there
    for name, tensor in facts["tensors"].items():
        if name not in graph["inputs"]:
            raise BundleError(f"{file}: the graph takes no tensor {shown(name)}; {_AGAIN}")
        shape, sides = tensor["shape"], graph["inputs"][name]["shape"]
        if len(shape) != len(sides) or any(isinstance(s, int) and s != n for n, s in zip(shape, sides, strict=True)):
            raise BundleError(
                f"{file}: tensor {shown(name)} is {shown(shape)}, the graph takes {shown(sides)}; {_AGAIN}"
            )
        for side, size in zip(sides, shape, strict=True):
            other, known = open_sides.setdefault(str(side), (name, size))
            if size != known:  # which a graph might broadcast, and say nothing
                raise BundleError(
                    f"{file}: {shown(side)} is {known} in {shown(other)} and {size} in {shown(name)}; {_AGAIN}"
                )
    missing = [name for name in graph["inputs"] if name not in facts["tensors"]]
    if missing and graph.get("no_adapter") == "none":  # the graph's own are another bundle's
        raise BundleError(f"{file}: lacks tensor {shown(missing[0])}, which this graph has to be given; {_AGAIN}")


def wanted_tasks(tasks: Sequence[str] | None, loaded: LoadedBundle) -> list[str]:
    """Names of tasks, in the bundle's order; raises OptionError for an unknown one, or none."""
    if tasks is None:
        return list(loaded.tasks)
    if not tasks:
        raise OptionError("tasks is an empty list; name some, or leave it out for all")
    for name in tasks:
        if name not in loaded.tasks:
            raise OptionError(f"unknown task {shown(name)}{suggest(name, loaded.tasks)}")
    return [name for name in loaded.tasks if name in tasks]
