"""Files of the Hugging Face Hub: their names, and fetching one into the local cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from garnish.errors import WeightsError, one_line

#: File names of a repository's weights, best first.
HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth")
#: File name of a repository's model configuration, and of how its pictures are prepared (transformers).
HUB_CONFIG, HUB_PICTURES = "config.json", "preprocessor_config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PREFIX = re.compile(r"^hf[-_]hub:")


def plain_hub_id(text: str) -> str | None:
    """``owner/name`` of an id, which may begin with ``hf-hub:``; None for what can be none."""
    plain = _PREFIX.sub("", text)
    return plain if _HUB_ID.fullmatch(plain) else None


def hub_file(hub_id: str, files: Sequence[str], *, beside: Sequence[str] = ()) -> Path:
    """A file of a Hub repository in the local cache, which it is fetched into if it is not there.

    Args:
        hub_id: ``owner/name``.
        files: names, of which the first that the repository has is taken.
        beside: names of files that are fetched with it, where there are any.

    Raises:
        WeightsError: no such repository or file, or it cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    remedy = "give the path of a downloaded file"
    try:
        # The cache first: weights that were loaded once load again offline, immediately and unchanged.
        for name in files:
            cached = try_to_load_from_cache(hub_id, name)
            if isinstance(cached, str):
                return Path(cached)
        # One request before any download, because without network a download retries for half a minute.
        held = {file.rfilename for file in HfApi().model_info(hub_id, timeout=20).siblings or ()}
        names = [name for name in files if name in held]
        for other in beside:
            if names and other in held:
                hf_hub_download(hub_id, other)
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
    raise WeightsError(f"{hub_id}: this Hub repository holds none of {', '.join(files)}; {remedy}")
