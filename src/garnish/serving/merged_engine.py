"""``MergedEngine``: the one bundle of a server, with its adapters folded into the trunk, so that they cost nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.errors import BundleError
from garnish.exporting.deployed import folded_copy
from garnish.model.model import Model
from garnish.serving.engine import Engine, Loaded, Outcome, Row
from garnish.serving.torch_engine import TorchEngine, bytes_of
from garnish.serving.torch_rows import InModel, run_rows


@final
class MergedEngine(Engine):
    """One bundle for the life of a server. Its outputs are those of :class:`TorchEngine` up to rounding.

    What cannot be folded (prompts, bottlenecks, the parts of single tasks) stays beside the trunk, as in an export; so
    do adapters of a bundle with several owners, each of which would need a trunk of its own.

    Args:
        model: as for :class:`TorchEngine`; its trunk is let go when the bundle was folded into a copy.
    """

    def __init__(self, model: Model) -> None:
        self._plain: TorchEngine | None = TorchEngine(model)
        self._folded: Model | None = None
        self.step, self.batch, self.pixels = self._plain.step, self._plain.batch, self._plain.pixels
        self.trunk: Mapping[str, Json] = self._plain.trunk
        self._loading = threading.Lock()

    def load(self, name: str, folder: Path) -> Loaded:
        """Read the bundle and fold it.

        Raises:
            BundleError: it is damaged or of another trunk; or one was folded already, also where it was unloaded since.
        """
        with self._loading:
            if self._plain is None:
                raise BundleError(
                    f"{folder}: this server has one bundle folded into its trunk and takes no other; start it with a"
                    " folder of bundles or of uploads"
                )
            loaded = self._plain.load(name, folder)
            names: Mapping[str, str] = loaded.handle.names
            self._folded = folded_copy(self._plain.model, list(names.values()))
            self._plain = None
            served = self._folded.served
            return replace(
                loaded,
                nbytes=bytes_of([*self._folded.owners, self._folded.decoders]),
                handle=InModel(names, served),
            )

    def check(self, folder: Path) -> None:
        """As the engine that reads the bundle; afterwards nothing more is taken, and nothing is checked."""
        if self._plain is not None:
            self._plain.check(folder)

    def unload(self, loaded: Loaded) -> None:
        """Nothing: the bundle is part of the trunk."""

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        """One pass of all rows."""
        assert self._folded is not None, "rows ask for what was loaded"
        return run_rows(self._folded, rows)
