"""Reading weights and their licence from a local file or folder or a Hub repository, never unpickling objects."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from garnish.errors import WeightsError, one_line
from garnish.files.path_text import given_path

_SAFETENSORS = ".safetensors"
_PICKLED = (".pth", ".pt", ".bin")
#: File names of a repository's weights, best first.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth")
#: File name of a repository's model configuration.
HUB_CONFIG = "config.json"
#: Keys under which training scripts keep the tensors.
_WRAPPERS = ("state_dict", "model", "teacher")
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
    file = weights_file(source)
    if file.suffix == _SAFETENSORS:
        tensors, licence = _read_safetensors(file)
    elif file.suffix in _PICKLED:
        tensors, licence = _read_pickled(file), None
    else:
        raise WeightsError(f"{file}: weights must be a {_SAFETENSORS}, {', '.join(_PICKLED)} file")
    wide = {k: t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for k, t in tensors.items()}
    return wide, licence or _licence_beside(file)


def weights_file(source: str) -> Path:
    """The file that :func:`read_weights` reads; a repository's is downloaded, with its model card and config.json.

    Raises:
        WeightsError: no such file or repository.
    """
    path = given_path(source, "weights", WeightsError)
    if not path.exists():
        hub_id = re.sub(r"^hf[-_]hub:", "", source)
        looks_local = source.startswith((".", "/", "~")) or path.suffix in (_SAFETENSORS, *_PICKLED)
        if looks_local or not _HUB_ID.fullmatch(hub_id):
            raise WeightsError(
                f"{source}: no such weights file; give a {_SAFETENSORS} or .pth file, a folder that holds one, "
                "or a Hub id owner/name"
            )
        path = _from_hub(hub_id)
    return _file_in(path) if path.is_dir() else path


def read_notes(file: str | Path) -> dict[str, object]:
    """The ``meta`` entry that a training run stored in a ``.pth`` file; empty if there is none."""
    path = Path(file)
    if path.suffix not in _PICKLED:
        return {}
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError):
        return {}
    notes = loaded.get("meta") if isinstance(loaded, Mapping) else None
    return {str(key): value for key, value in notes.items()} if isinstance(notes, Mapping) else {}


def check_floats(name: str, tensor: Tensor, own: Tensor, where: str) -> None:
    """Raise WeightsError for an integer or complex tensor in place of a float one, which a copy would convert."""
    if own.is_floating_point() and not tensor.is_floating_point():
        kinds = [str(t.dtype).removeprefix("torch.") for t in (tensor, own)]
        raise WeightsError(f"{where}: {name} holds {kinds[0]}, the architecture {kinds[1]}; save it as {kinds[1]}")


def is_non_commercial(licence: str) -> bool:
    """Whether a licence's text or name forbids commercial use (CC BY-NC, research only, NVIDIA source code licence)."""
    return _NON_COMMERCIAL.search(licence.lower()) is not None


def _file_in(folder: Path) -> Path:
    """The one weights file of a folder."""
    for suffix in (_SAFETENSORS, *_PICKLED):
        found = sorted(folder.glob(f"*{suffix}"))
        preferred = [f for f in found if f.name in _HUB_FILES]
        if len(found) == 1 or preferred:
            return (preferred or found)[0]
        if found:
            raise WeightsError(f"{folder}: {len(found)} {suffix} files ({found[0].name}, …); name the one to read")
    raise WeightsError(f"{folder}: no {_SAFETENSORS}, {', '.join(_PICKLED)} file in this folder")


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: cannot be read ({one_line(error, 120)}); fetch or write it again") from error
    return tensors, metadata.get("license") or metadata.get("licence")


def _read_pickled(file: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # A damaged file may also end here; the two cannot be told apart without unpickling.
        raise WeightsError(
            f"{file}: refused, because it holds objects other than tensors or is damaged; "
            f"save its state_dict alone as {_SAFETENSORS}"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{file}: cannot be read ({one_line(error, 120)}); fetch or write it again") from error
    for _ in _WRAPPERS:
        inner = [k for k in _WRAPPERS if isinstance(loaded, Mapping) and isinstance(loaded.get(k), Mapping)]
        if not inner:
            break
        loaded = loaded[inner[0]]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{file}: holds {type(loaded).__name__}, not named tensors; save a state_dict")
    other = [k for k, v in loaded.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if other:
        kind = type(loaded[other[0]]).__name__
        raise WeightsError(
            f"{file}: {len(other)} of {len(loaded)} entries are not named tensors (first: {other[0]!r}, {kind}); "
            "save the state_dict alone"
        )
    return dict(loaded)


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
    stated: dict[str, str] = {}
    for line in readme.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.match(r"[*_>\s-]*(licen[cs]e|license_name)[*_]*:[*_]*\s*(.+)", line, re.IGNORECASE)
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
