"""Reading weights and their licence from a local file or folder or a Hub repository, never unpickling objects."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from garnish.backbones.given_weights import GivenWeights
from garnish.backbones.hub_files import HUB_CONFIG, HUB_WEIGHTS, hub_file, plain_hub_id
from garnish.backbones.stored_weights import MOST_BYTES, PICKLED, SAFETENSORS, StoredWeights, open_stored
from garnish.errors import WeightsError, one_line, showable
from garnish.files.path_text import given_path
from garnish.files.regular import open_regular
from garnish.files.strict_json import read_json

#: As much of a README.md as is searched for the licence, bytes, and of a line of it, characters.
_README, _LINE = 2**20, 2000

#: Short names of licences as written in running text.
_SHORT_NAME = re.compile(
    r"(?<![a-z0-9])(?:apache[- ]2\.0|mit(?= licen[cs]e\b|$|[;,.)])|bsd[- ][23][- ]clause"
    r"|cc[- ]by(?:[- ]sa)?[- ]4\.0|cc0[- ]1\.0|[al]?gpl[- ]?v?[23](?:\.[01])?)",
    re.IGNORECASE,
)
_NON_COMMERCIAL = re.compile(
    r"non[-\s]?commercial|(?<![a-z0-9])nc(?![a-z0-9])|research(?:\s+\w+)?\s+only|only\s+for\s+(?:\w+\s+)?research"
    r"|academic(?:\s+\w+)?\s+only|nvidia\s+source\s+code\s+licen[cs]e|(?<![a-z0-9])nscl(?![a-z0-9])"
)


def read_weights(source: str) -> tuple[dict[str, Tensor], str | None]:
    """Read tensors and licence of a weights file.

    Args:
        source: a ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file, a folder that holds one, or a Hub id
            ``owner/name``. If a file has a ``state_dict``, ``model`` or ``teacher`` entry, that is read.

    Returns:
        Name → tensor on the CPU (float16 and bfloat16 converted to float32), and the licence: from the file's metadata,
        else the ``Licence:`` line of a README.md beside it (or the Hub's model card), else timm's ``config.json``
        beside it, else None.

    Raises:
        WeightsError: no such file or repository, a damaged file, or one that holds other objects than tensors.
    """
    held = open_weights(source)
    return held.read(), held.licence


def open_weights(source: str | GivenWeights) -> StoredWeights:
    """Names, shapes and licence of weights, before a value is read.

    Args:
        source: as for :func:`read_weights`, or the tensors of a model.

    Raises:
        WeightsError: likewise.
    """
    if isinstance(source, GivenWeights):
        tensors = source.tensors
        shapes = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
        return StoredWeights(None, shapes, source.licence, lambda: {n: t.detach() for n, t in tensors.items()})
    file = weights_file(source)
    held = open_stored(file)
    licence = held.licence or _licence_beside(file) or _licence_configured(file)
    return replace(held, licence=None if licence is None else showable(licence[:200]))


def weights_file(source: str) -> Path:
    """The file that :func:`read_weights` reads; a repository's is downloaded, with its model card and config.json.

    Raises:
        WeightsError: no such file or repository.
    """
    if not source.strip():
        raise WeightsError(f"weights {source!r} name no file; give a file, a folder or a Hub id, or leave them out")
    path = given_path(source, "weights", WeightsError)
    try:
        found, is_folder = path.exists(), path.is_dir()
    except OSError as error:  # rights
        raise WeightsError(
            f"{one_line(source, 200)}: no path of weights ({one_line(error, 120)}); give a file, a folder or a Hub id"
        ) from None
    if not found:
        hub_id = plain_hub_id(source)
        looks_local = source.startswith((".", "/", "~")) or path.suffix in (SAFETENSORS, *PICKLED)
        if looks_local or hub_id is None:
            raise WeightsError(
                f"{source}: no such weights file; give a {SAFETENSORS} or .pth file, a folder that holds one, "
                "or a Hub id owner/name"
            )
        path = hub_file(hub_id, HUB_WEIGHTS, beside=("README.md", HUB_CONFIG))  # the licence, the classes of a model
        is_folder = path.is_dir()
    return _file_in(path) if is_folder else path


def check_floats(name: str, tensor: Tensor, own: Tensor, where: str) -> None:
    """Raise WeightsError for an integer or complex tensor in place of a float one, which a copy would convert."""
    if own.is_floating_point() and not tensor.is_floating_point():
        kinds = [str(t.dtype).removeprefix("torch.") for t in (tensor, own)]
        raise WeightsError(f"{where}: {name} holds {kinds[0]}, the architecture {kinds[1]}; save it as {kinds[1]}")


def is_non_commercial(licence: str) -> bool:
    """Whether a licence's text or name forbids commercial use (CC BY-NC, research only, NVIDIA source code licence)."""
    return _NON_COMMERCIAL.search(licence[:_LINE].lower()) is not None


def _file_in(folder: Path) -> Path:
    """The one weights file of a folder."""
    for suffix in (SAFETENSORS, *PICKLED):
        found = sorted(folder.glob(f"*{suffix}"))
        preferred = [f for f in found if f.name in HUB_WEIGHTS]
        if len(found) == 1 or preferred:
            return (preferred or found)[0]
        if found:
            raise WeightsError(f"{folder}: {len(found)} {suffix} files ({found[0].name}, …); name the one to read")
    raise WeightsError(f"{folder}: no {SAFETENSORS}, {', '.join(PICKLED)} file in this folder")


def _licence_configured(file: Path) -> str | None:
    """The licence in the ``config.json`` of timm's beside a file."""
    config = file.parent / HUB_CONFIG
    if not config.is_file():
        return None
    with contextlib.suppress(WeightsError):  # of another program, which may write what it likes
        found = read_json(config, "model's description", "fetch it again", WeightsError)
        facts = found.get("pretrained_cfg") if isinstance(found, dict) else None
        stated = facts.get("license") if isinstance(facts, dict) else None
        return stated[:200] if isinstance(stated, str) and stated.strip() else None
    return None


def _licence_beside(file: Path) -> str | None:
    """The ``Licence:`` line of the README.md beside a file (the front matter of a Hub card has one too)."""
    readme = file.parent / "README.md"
    if not readme.is_file():
        return None
    try:
        with open_regular(readme, MOST_BYTES) as stream:
            text = stream.read(_README).decode("utf-8", "replace")
    except OSError:
        return None
    stated: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"[*_>\s-]*(licen[cs]e|license_name)[*_]*:[*_]*\s*(.+)", line[:_LINE], re.IGNORECASE)
        if match is not None:  # the first such line counts
            stated.setdefault(match[1].lower(), match[2].strip(" \"'"))
    said = stated.get("licence") or stated.get("license")
    if said is None:
        return None
    if said.lower() == "other":
        said = stated.get("license_name", said)
    if is_non_commercial(said):  # A line may name a free licence for the code next to a restricted one.
        return said[:200]
    named = _SHORT_NAME.search(said)
    return named.group() if named else said[:200]
