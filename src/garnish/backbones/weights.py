"""Reading weights and their licence from a local file or folder or a Hub repository, never unpickling objects."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from garnish.backbones.stored_weights import MOST_BYTES, PICKLED, SAFETENSORS, StoredWeights, open_stored
from garnish.errors import WeightsError, one_line, showable
from garnish.files.regular import open_regular

#: File names of a repository's weights, best first.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth")
#: File name of a repository's model configuration.
HUB_CONFIG = "config.json"
#: As much of a README.md as is searched for the licence, bytes, and of a line of it, characters.
_README, _LINE = 2**20, 2000
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

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
        else the ``Licence:`` line of a README.md beside it (or the Hub's model card), else None.

    Raises:
        WeightsError: no such file or repository, a damaged file, or one that holds other objects than tensors.
    """
    held = open_weights(source)
    return held.read(), held.licence


def open_weights(source: str) -> StoredWeights:
    """Names, shapes and licence of a weights file, before a value is read; arguments as for :func:`read_weights`.

    Raises:
        WeightsError: likewise.
    """
    file = weights_file(source)
    held = open_stored(file)
    licence = held.licence or _licence_beside(file)
    return replace(held, licence=None if licence is None else showable(licence[:200]))


def weights_file(source: str) -> Path:
    """The file that :func:`read_weights` reads; a repository's is downloaded, with its model card and config.json.

    Raises:
        WeightsError: no such file or repository.
    """
    if not source.strip():
        raise WeightsError(f"weights {source!r} name no file; give a file, a folder or a Hub id, or leave them out")
    try:
        path = Path(source).expanduser()
        found, is_folder = path.exists(), path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, rights, no such user, a null character
        raise WeightsError(
            f"{one_line(source, 200)}: no path of weights ({one_line(error, 120)}); give a file, a folder or a Hub id"
        ) from None
    if not found:
        hub_id = re.sub(r"^hf[-_]hub:", "", source)
        looks_local = source.startswith((".", "/", "~")) or path.suffix in (SAFETENSORS, *PICKLED)
        if looks_local or not _HUB_ID.fullmatch(hub_id):
            raise WeightsError(
                f"{source}: no such weights file; give a {SAFETENSORS} or .pth file, a folder that holds one, "
                "or a Hub id owner/name"
            )
        path = _from_hub(hub_id)
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
        preferred = [f for f in found if f.name in _HUB_FILES]
        if len(found) == 1 or preferred:
            return (preferred or found)[0]
        if found:
            raise WeightsError(f"{folder}: {len(found)} {suffix} files ({found[0].name}, …); name the one to read")
    raise WeightsError(f"{folder}: no {SAFETENSORS}, {', '.join(PICKLED)} file in this folder")


def _from_hub(hub_id: str) -> Path:
    """The weights file of a Hub repository in the local cache, with its model card beside it if it has one."""
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    remedy = "give the path of a downloaded file"
    try:
        # The cache first: weights that were loaded once load again offline, immediately and unchanged.
        for name in _HUB_FILES:
            cached = try_to_load_from_cache(hub_id, name)
            if isinstance(cached, str):
                return Path(cached)
        # One request before any download, because without network a download retries for half a minute.
        held = {file.rfilename for file in HfApi().model_info(hub_id, timeout=20).siblings or ()}
        names = [name for name in _HUB_FILES if name in held]
        for beside in ("README.md", HUB_CONFIG):  # the licence, the classes of a complete model
            if names and beside in held:
                hf_hub_download(hub_id, beside)
        if names:
            return Path(hf_hub_download(hub_id, names[0]))
    except GatedRepoError as error:
        raise WeightsError(
            f"{hub_id}: this Hub repository is gated; accept its terms on huggingface.co and run "
            f"`hf auth login`, or {remedy}"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise WeightsError(f"{hub_id}: no such file and no such Hub repository; check the spelling") from error
    except OfflineModeIsEnabled as error:
        raise WeightsError(
            f"{hub_id}: no such file, not in the Hub's local cache, and HF_HUB_OFFLINE is set; "
            f"unset it once, or {remedy}"
        ) from error
    except Exception as error:  # the network client, and so its exceptions, differ by version
        raise WeightsError(
            f"{hub_id}: no such file, not in the Hub's local cache, and the Hub cannot be reached "
            f"({one_line(error, 100)}); go online once, or {remedy}"
        ) from error
    raise WeightsError(f"{hub_id}: this Hub repository holds none of {', '.join(_HUB_FILES)}; {remedy}")


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
