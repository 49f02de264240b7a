"""What the tensors' file of a PEFT folder holds, sorted by module; a tensor that would not be used is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from garnish.bundles.peft.adapter_config import CONFIG, MOST_NAME, PeftConfig, read_adapter_config
from garnish.bundles.peft.exporting import TENSORS, WRAPPED
from garnish.bundles.peft.module_settings import tails_of
from garnish.bundles.peft.tensor_file import FLOATS, TensorFile
from garnish.errors import BundleError, one_line, shown

PICKLED = "adapter_model.bin"
#: More than all layers of the largest trunk have.
_MOST_MODULES = 10_000

Kind = Literal["lora_A", "lora_B", "lora_magnitude_vector"]
_LEAVES: Mapping[str, Kind] = {
    ".lora_A.weight": "lora_A",
    ".lora_B.weight": "lora_B",
    ".lora_magnitude_vector": "lora_magnitude_vector",
    ".lora_magnitude_vector.weight": "lora_magnitude_vector",
}


@dataclass(frozen=True, kw_only=True)
class PeftFiles:
    """The configuration of a PEFT folder and the header of its tensors.

    Attributes:
        where: the tensors' file, for messages.
        config: the validated configuration.
        file: the tensors' file.
        adapters: full module name → kind → name of the tensor in the file.
        saved: name within the wrapped model → name of the tensor in the file, of ``modules_to_save``.
    """

    where: str
    config: PeftConfig
    file: TensorFile
    adapters: Mapping[str, Mapping[Kind, str]]
    saved: Mapping[str, str]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a tensor of the file."""
        return self.file.facts[tensor].shape


def read_folder(folder: Path, leave_out: Sequence[str], *, ours: bool) -> PeftFiles:
    """Read a folder's configuration and the header of its tensors, and sort the latter by module.

    Args:
        folder: with ``adapter_config.json``.
        leave_out: names of modules whose tensors are ignored.
        ours: the folder was written by garnish; every target must then have its tensors.

    Raises:
        BundleError: a missing, pickled or damaged file, or tensors that garnish or PEFT would not use.
    """
    config = read_adapter_config(folder / CONFIG)
    file = folder / TENSORS
    if not file.exists():
        if (folder / PICKLED).exists():
            raise BundleError(
                f"{folder / PICKLED}: is pickled and is not read, since unpickling can run any code; "
                f"load it with PEFT and save it again (save_pretrained writes {TENSORS})"
            )
        raise BundleError(f"{folder}: has no {TENSORS}; write the adapter again")
    held = TensorFile.open(file)
    adapters: dict[str, dict[Kind, str]] = {}
    saved: dict[str, str] = {}
    unused = dict.fromkeys(leave_out)
    for key in sorted(held.facts):
        name = key.removeprefix(WRAPPED)
        if name == key:
            raise BundleError(f"{file}: {one_line(key, 200)} does not begin with {WRAPPED}; is it a file of PEFT's?")
        leaf = next((leaf for leaf in _LEAVES if name.endswith(leaf)), None)
        left_out = [part for part in leave_out if f".{part}." in f".{name}"]
        for part in left_out:
            unused.pop(part, None)
        if left_out:
            continue
        if leaf is not None:
            _sort_in(adapters, name.removesuffix(leaf), _LEAVES[leaf], key, str(file))
        elif any(f".{part}." in f".{name}" for part in config.modules_to_save):
            saved[name] = key
        else:
            raise BundleError(
                f"{file}: {one_line(key, 200)} is not a tensor of LoRA, rsLoRA or DoRA; nothing would use it"
            )
    for part in unused:
        raise BundleError(f"{file}: leave_out {shown(part)}: no tensor is of a module of that name")
    found = PeftFiles(where=str(file), config=config, file=held, adapters=adapters, saved=saved)
    _check(found, ours)
    return found


def _sort_in(adapters: dict[str, dict[Kind, str]], module: str, kind: Kind, key: str, where: str) -> None:
    if len(module) > MOST_NAME or not module.isprintable():
        raise BundleError(f"{where}: {shown(module, 100)} is no name of a module (printable, {MOST_NAME} characters)")
    tensors = adapters.setdefault(module, {})
    if len(adapters) > _MOST_MODULES:
        raise BundleError(
            f"{where}: has adapters at more than {_MOST_MODULES:,} modules; no backbone has as many layers"
        )
    if kind in tensors:
        raise BundleError(f"{where}: {module}: {kind} is there twice, under two names")
    tensors[kind] = key


def _check(found: PeftFiles, ours: bool) -> None:
    config = found.config
    if not found.adapters:
        raise BundleError(f"{found.where}: holds no adapter; there is nothing to read")
    wanted: list[Kind] = ["lora_A", "lora_B"]
    if config.use_dora:
        wanted.append("lora_magnitude_vector")
    for module, tensors in found.adapters.items():
        at = f"{found.where}: {module}"
        for kind in wanted:
            if kind not in tensors:
                raise BundleError(f"{at}: has no {kind}; the file is damaged or incomplete, write it again")
        if set(tensors) - set(wanted):
            raise BundleError(f"{at}: has a magnitude, but use_dora is false in {CONFIG}; nothing would use it")
        for kind, key in tensors.items():
            if (dtype := found.file.facts[key].dtype) not in FLOATS:
                raise BundleError(f"{at}: {kind} is of type {dtype}; adapters are of {', '.join(FLOATS)}")
    if ours and not isinstance(config.target_modules, str):
        left = dict.fromkeys(config.target_modules)
        for module in found.adapters:
            for tail in tails_of(module):
                left.pop(tail, None)
        for target in left:
            raise BundleError(
                f"{found.where}: has no tensors of {one_line(target, 100)}; the file is damaged, write it again"
            )
