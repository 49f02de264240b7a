"""An exported graph in onnxruntime: opened as its manifest says, run, and told in one line where that fails.

Shape letters: N pictures, C channels of a raw output, H W pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from garnish.errors import BundleError, DataError, GarnishError, MissingExtraError, one_line, shown
from garnish.files.bytes_as_file import bytes_as_file
from garnish.files.regular import read_regular
from garnish.runtime.manifest import GRAPH, IMAGE, MANIFEST, ExportFacts, read_manifest

#: Largest graph that is read, bytes: what its format can hold in one file.
MOST_GRAPH = 2**31
#: onnxruntime's levels of severity: errors alone.
_ERRORS = 3
_TYPES = {"uint8": "tensor(uint8)", "uint16": "tensor(uint16)", "float32": "tensor(float)"}
_AGAIN = "export it again"
#: A folder that cannot be: it would lie in what is no folder.
_NOWHERE = str(Path(os.devnull) / "none")


def onnxruntime() -> Any:
    """The library; it takes a tenth of a second to import, and has no types.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnxruntime as library
    except ImportError as error:
        raise MissingExtraError(
            f"garnish.runtime runs graphs with onnxruntime, which cannot be imported ({one_line(error, 120)});"
            " pip install onnxruntime"
        ) from error
    return library


@final
class Graph:
    """The graph of an exported folder, ready to run from any number of threads.

    Args:
        folder: an exported folder.
        facts: its manifest.
        threads: that one run uses; None: a thread a core.

    Raises:
        BundleError: the graph is missing, is not the one of the manifest, or cannot be opened.
    """

    def __init__(self, folder: Path, facts: ExportFacts, threads: int | None) -> None:
        library = onnxruntime()
        self._library = library
        self.facts = facts
        self.file = file = folder / GRAPH[facts["to"]]
        if facts["to"] != "onnx":
            raise BundleError(
                f"{file}: is a torch.export program, which torch runs; export it to onnx for this runtime"
            )
        try:
            data = read_regular(file, MOST_GRAPH)
        except OSError as error:
            raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}); {_AGAIN}") from error
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise BundleError(f"{file}: is not the graph of its manifest (their SHA-256 differ); copy or {_AGAIN}")
        options = library.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        # else tensors that a graph says lie in other files would be read from the current folder
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
        if facts["form"] == "inputs":  # a warning for each input that has an initializer, hundreds of lines
            options.log_severity_level = _ERRORS
        try:
            self._session = library.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # damaged or strange graphs raise a dozen kinds, all of Exception
            raise BundleError(f"{file}: cannot be opened by onnxruntime ({_told(error)}); {_AGAIN}") from error
        # it keeps the bytes of the file to open it again elsewhere, which a session on a CPU never does
        self._session.disable_fallback()
        self._session._model_bytes = None
        self._check(facts)

    def adapter(self, file: Path, data: bytes) -> tuple[Any, dict[str, tuple[str, tuple[int, ...]]]]:
        """Adapter tensors, for :meth:`run`, and what they are: name → (type, shape).

        Args:
            file: where they were read, for messages.
            data: the bytes of that file.

        Raises:
            BundleError: they are damaged.
        """
        try:
            # onnxruntime opens adapters by their path, and maps the file for as long as it uses them: whoever wrote
            # over it in place would change every further prediction, or end the process by making it shorter
            with bytes_as_file(data) as path:
                held = self._library.AdapterFormat.read_adapter(path).get_parameters()
                loaded = self._library.LoraAdapter()
                loaded.Load(path)
        except Exception as error:  # a bare RuntimeError
            raise BundleError(f"{file}: cannot be opened by onnxruntime ({_told(error)}); {_AGAIN}") from error
        return loaded, {name: (value.data_type(), tuple(value.shape())) for name, value in held.items()}

    def run(self, images: np.ndarray, outputs: Sequence[str], adapter: Any = None) -> dict[str, np.ndarray]:
        """Raw outputs by name, (N, C, H, W) float32; onnxruntime computes the others as well.

        Args:
            images: (N, 3, H, W) uint8 RGB; of other bands (N, C, H, W) of the type that the graph takes.
            outputs: names.
            adapter: of :meth:`adapter`; None: the graph's own tensors.

        Raises:
            DataError: pictures that are smaller than the graph takes. GarnishError: onnxruntime fails.
        """
        least = self.facts["image"]["least"]
        if min(images.shape[2:]) < least:
            size = f"{images.shape[3]}x{images.shape[2]}"
            raise DataError(f"a picture of {size} is smaller than the {least} pixels that this graph takes; enlarge it")
        whole = images.dtype == np.dtype(self.facts["image"]["dtype"])  # always where the bands are not RGB
        given = images if whole else images.astype(np.float32) / np.float32(255)
        how = self._library.RunOptions()
        if adapter is not None:
            how.add_active_adapter(adapter)
        try:
            found = self._session.run(list(outputs), {IMAGE: given}, how)
        except Exception as error:
            raise GarnishError(f"{self.file}: onnxruntime cannot run it ({_told(error)}); {_AGAIN}") from error
        return dict(zip(outputs, found, strict=True))

    def _check(self, facts: ExportFacts) -> None:
        """Raise BundleError where the graph's inputs and outputs are not those of the manifest."""
        image = {value.name: value.type for value in self._session.get_inputs()}
        expected = {IMAGE: _TYPES[facts["image"]["dtype"]]}
        outputs = [value.name for value in self._session.get_outputs()]
        given = {value.name: list(value.shape) for value in self._session.get_overridable_initializers()}
        stated = {name: list(tensor["shape"]) for name, tensor in facts["inputs"].items()}
        for what, held, said in (
            ("inputs", image, expected),
            ("outputs", outputs, facts["outputs"]),
            ("inputs with defaults", given, stated),
        ):
            if held != said:
                raise BundleError(
                    f"{self.file}: has other {what} than its manifest says ({_differing(held, said)}); {_AGAIN}"
                )


def _differing(held: Any, said: Any) -> str:
    """The first entry in which two lists or mappings differ."""
    if isinstance(held, Mapping):
        name = next(n for n in (*said, *held) if held.get(n) != said.get(n))
        return f"{shown(name)}: {shown(held.get(name))}, not {shown(said.get(name))}"
    return f"{shown(held)}, not {shown(said)}"


def _told(error: Exception) -> str:
    return one_line(error, 200) or type(error).__name__


def open_graph(folder: Path, given: Path, threads: int | None) -> tuple[ExportFacts, Graph]:
    """The manifest and the graph of a folder, which messages name as it was given."""
    if not (folder / MANIFEST).is_file():
        what = f"it holds no {MANIFEST}" if folder.is_dir() else "no such folder"
        bundle = (folder / "bundle.json").is_file()
        do = "it is a bundle: garnish export makes one of it" if bundle else "give one that garnish export wrote"
        raise BundleError(f"{given}: is not an exported folder ({what}); {do}")
    facts = read_manifest(folder)
    return facts, Graph(folder, facts, threads)
