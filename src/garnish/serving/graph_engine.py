"""``GraphEngine``: the engine over an exported folder, without torch; its bundles are those that lie in the folder.

Shape letters: N rows, C channels of a raw output, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.errors import BundleError, GarnishError, OptionError, shown, suggest
from garnish.files.regular import check_regular
from garnish.runtime.adapters import LoadedBundle
from garnish.runtime.manifest import ADAPTER, read_adapter_facts
from garnish.runtime.session import STEP, Session
from garnish.serving.engine import Engine, Loaded, Outcome, Row


@final
class GraphEngine(Engine):
    """Rows of one bundle share a run; a run computes all tasks of its bundle.

    A graph with one bundle inside ("merged") has it under whatever name it is loaded by; else names are those of the
    bundles beside the graph.
    """

    step = STEP
    batch = 1  # several are no faster in onnxruntime on a CPU

    def __init__(self, folder: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Open a folder that ``garnish export`` wrote.

        Args:
            folder: its path.
            threads: of a run; None: a thread a core.

        Raises:
            BundleError: not such a folder, or damaged. OptionError: its graph takes other bands as files hold them.
        """
        self._session = Session(folder, threads=threads)
        self.folder = self._session.folder
        self.trunk: Mapping[str, Json] = dict(self._session.facts["backbone"])
        if not self._session.bands.is_rgb and self._session.facts["image"]["dtype"] != "float32":
            raise OptionError(
                f"{self.folder}: its graph takes other bands as files hold them, which is not served; export it with"
                " --input float"
            )

    @property
    def bundles(self) -> tuple[str, ...]:
        """Names of the bundles beside the graph, as they lie there now; none where one is inside it."""
        return self._session.bundles

    def load(self, name: str, folder: Path) -> Loaded:
        """A bundle of the folder.

        Raises:
            BundleError: another folder than the graph's, no such bundle, or a damaged one.
        """
        self.check(folder)
        if self._session.facts["form"] == "merged":
            sha256, nbytes, asked = self._session.facts["sha256"], 0, None
        else:
            if name not in self.bundles:
                raise BundleError(f"{self.folder}: no bundle {shown(name)}{suggest(name, self.bundles)}")
            sha256 = read_adapter_facts(self.folder / f"{name}.json")["sha256"]
            nbytes, asked = check_regular(self.folder / f"{name}{ADAPTER}", 2**31), name
        found = self._session.bundle(asked)
        decodings = {task: told.decoding for task, told in found.tasks.items()}
        kinds = {task: type(decoding).__name__ for task, decoding in decodings.items()}  # manifests name no others
        told: dict[str, Json] = {name: self.trunk[name] for name in ("licence", "non_commercial")}
        return Loaded(name, decodings, kinds, self._session.bands, sha256, nbytes, found, told)

    def check(self, folder: Path) -> None:
        """Raise BundleError for another folder than the graph's."""
        if folder.resolve() != self.folder:
            raise BundleError(
                f"{folder}: a server of an exported folder takes the bundles beside its graph alone; export the bundle"
                f" into {self.folder}, or serve without --runtime onnx"
            )

    def unload(self, loaded: Loaded) -> None:
        """Forget a bundle's tensors; one inside the graph stays."""
        self._session.drop(loaded.name)

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        """One run for each bundle, of the rows that want it."""
        wanted: dict[Loaded, list[int]] = {}
        for number, row in enumerate(rows):
            for loaded, _ in row.asked:
                wanted.setdefault(loaded, []).append(number)
        outcomes: list[dict[tuple[str, str], np.ndarray] | GarnishError] = [{} for _ in rows]
        for loaded, numbers in wanted.items():
            for number, found in zip(numbers, self._of(loaded, [rows[n] for n in numbers]), strict=True):
                before = outcomes[number]
                if isinstance(before, GarnishError):
                    continue
                outcomes[number] = found if isinstance(found, GarnishError) else before | found
        return list(outcomes)

    def _of(self, loaded: Loaded, rows: Sequence[Row]) -> list[dict[tuple[str, str], np.ndarray] | GarnishError]:
        """Of each row what it wants of one bundle."""
        asked = [next(tasks for one, tasks in row.asked if one is loaded) for row in rows]
        bundle: LoadedBundle = loaded.handle
        names = [task for task in bundle.tasks if any(task in tasks for tasks in asked)]
        raw = self._session.outputs_of(bundle, np.stack([row.picture for row in rows]), names)
        return [
            _checked({(loaded.name, task): raw[task][number] for task in tasks}) for number, tasks in enumerate(asked)
        ]


def _checked(found: dict[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], np.ndarray] | GarnishError:
    for (bundle, task), out in found.items():
        if not np.isfinite(out).all():
            return GarnishError(f"the output of task {task!r} of bundle {bundle!r} is not finite; check the picture")
    return found
