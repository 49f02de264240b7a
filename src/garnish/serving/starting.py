"""What ``garnish serve`` makes before it listens: an engine, a store of bundles, a batcher, a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from garnish.errors import BundleError, OptionError, plural, shown
from garnish.output import muted
from garnish.serving.batcher import Batcher
from garnish.serving.bundle_store import BundleStore
from garnish.serving.engine import Engine
from garnish.serving.service import Service


@final
@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is to be served, and how.

    Attributes:
        bundles: name → folder.
        root: a folder of bundles, loaded on demand.
        uploads: a folder where uploads stay.
        runtime: "torch", or "onnx" for one exported folder.
        changing: whether bundles may come and go.
        memory: bytes of bundles in memory.
        max_upload: bytes of an upload.
        batch: rows of a pass; None: as the engine says.
        queue: requests that may wait.
        megapixels: of a picture.
        device: of torch.
        weights: of the trunk, where they have moved.
        threads: of a pass; None: as torch or onnxruntime chooses.
    """

    bundles: Mapping[str, Path]
    root: Path | None = None
    uploads: Path | None = None
    runtime: Literal["torch", "onnx"] = "torch"
    changing: bool = False
    memory: int = 2**31
    max_upload: int = 64 * 2**20
    batch: int | None = None
    queue: int = 64
    megapixels: float = 100.0
    device: str = "auto"
    weights: str | None = None
    threads: int | None = None


@final
@dataclass(frozen=True, eq=False)
class StartedServing:
    """What answers requests; :meth:`close` it when nobody asks any more."""

    engine: Engine
    store: BundleStore
    batcher: Batcher
    service: Service
    is_merged: bool

    def close(self) -> None:
        """Answer what was accepted, and end."""
        self.batcher.close(drain=True)


def start_serving(asked: Serving) -> StartedServing:
    """Read the trunk and every bundle that is named.

    Raises:
        BundleError: a bundle is damaged, of another trunk, or there is none. OptionError: what does not go together.
    """
    if asked.root is not None and asked.uploads is not None and asked.root.resolve() == asked.uploads.resolve():
        raise OptionError(
            f"serve: {asked.root} is the folder of --bundles and of --uploads, where DELETE removes files; name two"
        )
    if asked.runtime == "onnx":
        engine, bundles, is_merged = _of_graph(asked)
    else:
        engine, bundles, is_merged = _of_torch(asked)
    store = BundleStore(
        engine, memory=asked.memory, uploads=asked.uploads, root=asked.root, max_upload=asked.max_upload
    )
    for name, folder in bundles.items():
        store.add(name, folder)
        # what is named here is refused here; the store logs what it raises, with the path that clients must not learn
        with muted("garnish.serving.bundle_store"), store.using([name]):
            pass
    store.names()  # finds what --bundles holds, and tells what of it does not fit
    batcher = Batcher(engine, queue=asked.queue, batch=asked.batch)
    service = Service(engine, store, batcher, megapixels=asked.megapixels)
    return StartedServing(engine, store, batcher, service, is_merged)


def _of_graph(asked: Serving) -> tuple[Engine, Mapping[str, Path], bool]:
    from garnish.serving.graph_engine import GraphEngine

    if len(asked.bundles) != 1 or asked.root is not None:
        count = plural(len(asked.bundles), "folder")
        raise OptionError(f"serve: --runtime onnx serves one exported folder, and {count} were given; export into one")
    if asked.changing:
        raise OptionError("serve: --runtime onnx serves what lies in its folder; leave the token out")
    if asked.uploads is not None:
        raise OptionError("serve: --runtime onnx serves what lies in its folder; leave --uploads out")
    if asked.weights is not None:
        raise OptionError("serve: --runtime onnx has its weights in its folder; leave --weights out")
    if asked.device not in ("auto", "cpu"):
        raise OptionError(f"serve: --runtime onnx runs on the CPU, not on --device {shown(asked.device)}; leave it out")
    ((name, folder),) = asked.bundles.items()
    engine = GraphEngine(folder, threads=asked.threads)
    inside = engine.bundles
    return engine, dict.fromkeys(inside or (name,), engine.folder), not inside


def _of_torch(asked: Serving) -> tuple[Engine, Mapping[str, Path], bool]:
    import torch

    from garnish.bundles.bundle_json import read_bundle_json
    from garnish.bundles.own_backbone import check_backbone, rebuild
    from garnish.checking.device import usable_device
    from garnish.model.model import Model
    from garnish.serving.merged_engine import MergedEngine
    from garnish.serving.torch_engine import TorchEngine

    first = next(iter(asked.bundles.values()), None) or _any_below(asked.root) or _any_below(asked.uploads)
    if first is None:
        raise BundleError("serve: there is no bundle, by which the trunk would be known; name at least one")
    facts = read_bundle_json(first)["backbone"]
    name = asked.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = usable_device(name, "--device")
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    backbone = rebuild(str(first), facts, asked.weights)
    check_backbone(str(first), facts, backbone, str(asked.weights or backbone.weights_source))
    model = Model(backbone).eval().to(device)
    is_merged = len(asked.bundles) == 1 and asked.root is None and not asked.changing and not _any_below(asked.uploads)
    return (MergedEngine if is_merged else TorchEngine)(model), asked.bundles, is_merged


def _any_below(folder: Path | None) -> Path | None:
    """The first bundle of a folder of them."""
    if folder is None:
        return None
    try:
        found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        if not folder.exists():
            return None
        raise BundleError(f"{folder}: cannot be read ({error.strerror}); check the path and its rights") from error
    return next((entry for entry in found if (entry / "bundle.json").is_file()), None)
