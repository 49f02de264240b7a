"""An engine without a trunk, for tests of what lies above it: outputs are simple functions of the picture."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from garnish.decodings.classes import Classes
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.errors import BundleError, GarnishError
from garnish.pictures.bands import Bands
from garnish.serving.engine import Engine, Loaded, Outcome, Row

NAMES = ("road", "sky", "tree")


def write_bundle(folder: Path, shift: int = 0, size: int = 1000) -> Path:
    """A folder that :class:`FakeEngine` loads: tasks ``seg`` (its ids turned by ``shift``) and ``depth``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps({"shift": shift, "size": size}))
    (folder / "weights.safetensors").write_bytes(b"\0" * size)
    return folder


def wait_for(is_so: Callable[[], object]) -> None:
    """Wait until something is so, ten seconds at most."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


class FakeEngine(Engine):
    """Red, green or blue, whichever is the strongest, is the class; depth is the mean level.

    Attributes:
        passes: the rows of each pass so far.
        seconds: that a pass takes.
        loads: names in the order loaded.
        resident: what is in memory.
    """

    step = 32
    trunk: ClassVar = {"name": "fake", "fingerprint": "0" * 64, "licence": "apache-2.0", "weights_source": "none"}

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.passes: list[list[Row]] = []
        self.loads: list[str] = []
        self.resident: set[Loaded] = set()
        self.gate = threading.Event()
        self.gate.set()

    def load(self, name: str, folder: Path) -> Loaded:
        try:
            facts = json.loads((folder / "bundle.json").read_text())
            shift, size = int(facts["shift"]), int(facts["size"])
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(f"{folder}: is damaged; save it again") from error
        self.loads.append(name)
        decodings = {"seg": Classes(names=NAMES), "depth": SoftplusDepth(max_metres=10.0)}
        made = Loaded(name, decodings, {"seg": "Semantic", "depth": "Depth"}, Bands(), f"{shift:064x}", size, shift)
        self.resident.add(made)
        return made

    def check(self, folder: Path) -> None:
        if b'"foreign"' in (folder / "bundle.json").read_bytes():
            raise BundleError(f"{folder}: belongs to backbone other, not to fake")

    def unload(self, loaded: Loaded) -> None:
        self.resident.remove(loaded)

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        assert len({row.key for row in rows}) == 1
        self.gate.wait()
        time.sleep(self.seconds)
        self.passes.append(list(rows))
        return [self._one(row) for row in rows]

    def _one(self, row: Row) -> Outcome:
        if (row.picture == 13).all():  # a picture that goes wrong
            return GarnishError("the output of task 'seg' is not finite")
        if (row.picture == 66).all():
            raise RuntimeError("a fault in a pass")
        found = {}
        for loaded, tasks in row.asked:
            values = row.picture.astype(np.float32) / 255
            outputs = {"seg": np.roll(values, loaded.handle, 0), "depth": values.mean(0, keepdims=True)}
            found |= {(loaded.name, task): outputs[task] for task in tasks}
        return found
