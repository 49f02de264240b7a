"""An application over :class:`serving_fakes.FakeEngine` and a store without a disk, for tests of HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from garnish.serving.app import make_app
from garnish.serving.batcher import Batcher
from garnish.serving.engine import Loaded
from garnish.serving.refusals import UnknownBundle
from garnish.serving.service import Service
from garnish.serving.settings import ServerSettings
from garnish.serving.upload_folder import check_bundle_name
from serving_fakes import FakeEngine, write_bundle

TOKEN = "a-token-of-tests"


@dataclass(frozen=True)
class Counts:
    known: int
    resident: int
    nbytes: int = 5
    hits: int = 4
    misses: int = 3
    dropped: int = 2
    load_seconds_total: float = 1.5


class FakeStore:
    """Bundles that stay loaded; ``folder`` holds what uploads and folders are read from."""

    def __init__(self, engine: FakeEngine, folder: Path) -> None:
        self.engine, self.folder, self.loaded = engine, folder, dict[str, Loaded]()

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.loaded))

    def about(self, name: str) -> dict:
        found = self._known(name)
        return {"name": name, "tasks": list(found.decodings), "sha256": found.sha256, "nothing": float("nan")}

    @contextmanager
    def using(self, names: Sequence[str]) -> Iterator[tuple[Loaded, ...]]:
        yield tuple(map(self._known, names))

    def put(self, name: str, files: Mapping[str, bytes]) -> dict:
        check_bundle_name(name)
        (here := self.folder / "uploads" / name).mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            (here / file).write_bytes(data)
        self.loaded[name] = self.engine.load(name, here)
        return self.about(name)

    def put_from(self, name: str, folder_name: str) -> dict:
        check_bundle_name(folder_name)
        self.loaded[name] = self.engine.load(name, self.folder / folder_name)
        return self.about(name)

    def remove(self, name: str) -> None:
        self._known(name)
        del self.loaded[name]

    def counts(self) -> Counts:
        return Counts(len(self.loaded), len(self.loaded))

    def _known(self, name: str) -> Loaded:
        if name not in self.loaded:
            raise UnknownBundle(f"no bundle {name!r}")
        return self.loaded[name]


class Served:
    """All parts of one application, with bundles street and cracks."""

    def __init__(self, folder: Path, seconds: float = 0.0, queue: int = 64, **settings: object) -> None:
        self.engine, self.folder = FakeEngine(seconds), folder
        self.store = FakeStore(self.engine, folder)
        for shift, name in enumerate(("street", "cracks")):
            self.store.loaded[name] = self.engine.load(name, write_bundle(folder / name, shift))
        self.batcher = Batcher(self.engine, queue=queue)
        self.service = Service(self.engine, self.store, self.batcher, megapixels=1.0)
        self.settings = ServerSettings(**{"token": TOKEN, "hosts": frozenset({"testserver"}), **settings})
        self.app = make_app(self.service, self.store, self.settings, queued=lambda: self.batcher.counts().queued)
        self.batcher.observers.append(self.app.state.parts.metrics)
        self.client = TestClient(self.app, raise_server_exceptions=False)


def picture(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()
