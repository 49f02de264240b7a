"""A model on its way to the nodes of a cluster: what it is, and the bytes of its files where no disk is shared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from garnish.backbones.given_weights import GIVEN
from garnish.backbones.hub_files import HUB_CONFIG, HUB_PICTURES
from garnish.backbones.weights import weights_file
from garnish.bundles.bundle_json import DESCRIPTION, WEIGHTS, bundle_folder
from garnish.bundles.given_bundle import MOST_WEIGHTS
from garnish.bundles.named_models import names_finished, open_model
from garnish.checking.device import usable_device
from garnish.errors import BundleError, one_line
from garnish.files.checksums import SUMS
from garnish.files.regular import read_regular
from garnish.model.model import Model

#: Sources of weights that are in no file.
_NO_FILE = ("bundled", "random", GIVEN)
#: What is read beside weights.
_BESIDE = (HUB_CONFIG, HUB_PICTURES)
#: Where a shipped model is laid, below a folder of the node.
_TRUNK = "trunk"


@final
@dataclass(frozen=True)
class ShippedModel:
    """What is opened on a node: paths and names as they were given, or the bytes of the files.

    Attributes:
        paths: bundles' folders, or the name of a finished model.
        weights: of the backbone, as they were given; None: as the bundle names them.
        bundles: name of a file → its bytes, of each bundle; empty: it is read from its path.
        trunk: likewise of the backbone's weights and what is read beside them, the weights first; empty: likewise.
    """

    paths: tuple[str, ...]
    weights: str | None
    bundles: tuple[Mapping[str, bytes], ...] = ()
    trunk: Mapping[str, bytes] | None = None

    def open(self, folder: Path, device: str) -> Model:
        """The model; shipped files are written below ``folder``, which is the caller's to remove.

        Raises:
            Whatever :func:`garnish.bundles.named_models.open_model` raises.
        """
        paths, weights = list(self.paths), self.weights
        for number, files in enumerate(self.bundles):
            paths[number] = str(_laid(folder / f"bundle{number}", files))
        if self.trunk is not None:
            weights = str(_laid(folder / _TRUNK, self.trunk) / next(iter(self.trunk)))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return open_model(paths, weights, device=usable_device(device, "--device"))


def shipped(paths: Sequence[str], model: Model, *, as_bytes: bool) -> ShippedModel:
    """What is sent to nodes to open the same model there.

    Args:
        paths: bundles' folders, or the name of a finished model.
        model: that was opened from these; it knows where its backbone's weights were found.
        as_bytes: with the bytes of all files, for nodes that do not see them; else they read them from their paths.

    Raises:
        BundleError: a file that cannot be read.
    """
    is_finished, source = names_finished(paths), model.backbone.weights_source
    file = None if source in _NO_FILE else weights_file(source).absolute()
    places = tuple(paths) if is_finished else tuple(str(bundle_folder(path).absolute()) for path in paths)
    if not as_bytes:
        return ShippedModel(places, None if file is None else str(file))
    try:
        bundles = () if is_finished else tuple(map(_bundle_bytes, places))
        trunk = None
        if file is not None:
            beside = [other for name in _BESIDE if (other := file.with_name(name)).is_file()]
            trunk = {one.name: read_regular(one, MOST_WEIGHTS) for one in (file, *beside)}
    except OSError as error:
        raise BundleError(f"{', '.join(paths)}: cannot be sent to the nodes ({one_line(error, 120)})") from error
    return ShippedModel(places, None, bundles, trunk)


def model_digests(paths: Sequence[str], model: Model) -> list[str]:
    """What tells models apart, 32 digits each: of bundles their descriptions, which hold the sums of their weights."""
    if not names_finished(paths):
        described = [read_regular(bundle_folder(path) / DESCRIPTION, MOST_WEIGHTS) for path in paths]
        return [hashlib.sha256(data).hexdigest()[:32] for data in described]
    made = hashlib.sha256()
    for name, tensor in sorted(model.all_tensors().items()):
        made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        made.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return [made.hexdigest()[:32]]


def _bundle_bytes(path: str) -> dict[str, bytes]:
    folder = bundle_folder(path)
    return {
        name: read_regular(folder / name, MOST_WEIGHTS)
        for name in (DESCRIPTION, WEIGHTS, SUMS)
        if (folder / name).is_file()
    }


def _laid(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
