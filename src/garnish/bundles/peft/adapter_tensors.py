"""Reading the tensors of a PEFT folder, sorted by module; a tensor that would not be used is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from garnish.bundles.peft.adapter_config import CONFIG, PeftConfig, read_adapter_config
from garnish.bundles.peft.exporting import TENSORS, WRAPPED
from garnish.bundles.tensors import read_tensors
from garnish.errors import BundleError, one_line

PICKLED = "adapter_model.bin"

Kind = Literal["lora_A", "lora_B", "lora_magnitude_vector"]
_LEAVES: Mapping[str, Kind] = {
    ".lora_A.weight": "lora_A",
    ".lora_B.weight": "lora_B",
    ".lora_magnitude_vector": "lora_magnitude_vector",
    ".lora_magnitude_vector.weight": "lora_magnitude_vector",
}


@dataclass(frozen=True, kw_only=True)
class PeftFiles:
    """The configuration and tensors of a PEFT folder.

    Attributes:
        where: the tensors' file, for messages.
        config: the validated configuration.
        adapters: full module name → kind → tensor, float32.
        saved: name within the wrapped model → tensor, of ``modules_to_save``.
    """

    where: str
    config: PeftConfig
    adapters: Mapping[str, Mapping[Kind, Tensor]]
    saved: Mapping[str, Tensor]


def read_folder(folder: Path, leave_out: Sequence[str], *, ours: bool) -> PeftFiles:
    """Read a folder's tensors and sort them by module.

    Args:
        folder: with ``adapter_config.json``.
        leave_out: names of modules whose tensors are ignored.
        ours: the folder was written by garnish; every target must then have its tensors.

    Raises:
        BundleError: a missing, pickled or damaged file, or tensors that garnish or PEFT would not use.
    """
    config = read_adapter_config(folder / CONFIG)
    file = folder / TENSORS
    if not file.is_file():
        if (folder / PICKLED).exists():
            raise BundleError(
                f"{folder / PICKLED}: is pickled and is not read, since unpickling can run any code; "
                f"load it with PEFT and save it again (save_pretrained writes {TENSORS})"
            )
        raise BundleError(f"{folder}: has no {TENSORS}; write the adapter again")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}); write the adapter again") from error
    adapters: dict[str, dict[Kind, Tensor]] = {}
    saved: dict[str, Tensor] = {}
    unused = dict.fromkeys(leave_out)
    for key, tensor in sorted(read_tensors(data, str(file)).items()):
        name = key.removeprefix(WRAPPED)
        if name == key:
            raise BundleError(f"{file}: {key} does not begin with {WRAPPED}; is it a file of PEFT's?")
        value = tensor.float() if tensor.is_floating_point() else tensor
        leaf = next((leaf for leaf in _LEAVES if name.endswith(leaf)), None)
        left_out = [part for part in leave_out if f".{part}." in f".{name}"]
        for part in left_out:
            unused.pop(part, None)
        if left_out:
            continue
        if leaf is not None:
            adapters.setdefault(name.removesuffix(leaf), {})[_LEAVES[leaf]] = value
        elif any(f".{part}." in f".{name}" for part in config.modules_to_save):
            saved[name] = value
        else:
            raise BundleError(f"{file}: {key} is not a tensor of LoRA, rsLoRA or DoRA; nothing would use it")
    for part in unused:
        raise BundleError(f"{file}: leave_out {part!r}: no tensor is of a module of that name")
    found = PeftFiles(where=str(file), config=config, adapters=adapters, saved=saved)
    _check(found, ours)
    return found


def _check(found: PeftFiles, ours: bool) -> None:
    config = found.config
    if not found.adapters:
        raise BundleError(f"{found.where}: holds no adapter; there is nothing to read")
    for module, tensors in found.adapters.items():
        at = f"{found.where}: {module}"
        wanted: list[Kind] = ["lora_A", "lora_B", *(["lora_magnitude_vector"] if config.use_dora else [])]  # type: ignore[list-item]
        for kind in wanted:
            if kind not in tensors:
                raise BundleError(f"{at}: has no {kind}; the file is damaged or incomplete, write it again")
        if set(tensors) - set(wanted):
            raise BundleError(f"{at}: has a magnitude, but use_dora is false in {CONFIG}; nothing would use it")
        if not config.targets(module):
            raise BundleError(f"{at}: is not among target_modules of {CONFIG}, so PEFT would not use it")
        rank = config.rank_of(module)
        if tensors["lora_A"].ndim not in (2, 4) or tensors["lora_A"].shape[0] != rank:
            shape = tuple(tensors["lora_A"].shape)
            raise BundleError(f"{at}: lora_A has shape {shape}, but {CONFIG} gives the module rank {rank}")
    if ours and isinstance(config.target_modules, tuple):
        for target in config.target_modules:
            if not any(m == target or m.endswith(f".{target}") for m in found.adapters):
                raise BundleError(f"{found.where}: has no tensors of {target}; the file is damaged, write it again")
