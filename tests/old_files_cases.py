"""What the files in ``tests/old_files`` were written on: trunks and pictures by formula, so that none need be stored.

Formulas and names are part of those files and must never change. Everything is done in whole numbers that wrap at 2³²,
so that every machine and version makes the same bytes: bundles refuse a trunk one bit of which is another.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor, nn

FILES = Path(__file__).parent / "old_files"
#: height and width of the pictures: no trunk's multiple, so that they are padded
SIZE = (56, 72)
#: what differs by more than this from what was recorded is another output (over the largest value recorded)
RELATIVE = 1e-4


def hashed(name: str, shape: Iterable[int]) -> np.ndarray:
    """Whole numbers from 0 to 1023 that look random and follow from a name (crc32, then the end of MurmurHash3)."""
    shape = tuple(shape)
    x = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(zlib.crc32(name.encode()))
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return (x >> np.uint32(22)).reshape(shape).astype(np.int64)


def around_zero(name: str, shape: Sequence[int]) -> np.ndarray:
    """Float32 within ±1/2: multiples of 2⁻¹⁰, so that every sum and product by a power of two below is exact."""
    return ((hashed(name, shape) - 512) / 1024).astype(np.float32)


def weight(name: str, shape: Sequence[int]) -> np.ndarray:
    """A trunk's tensor: about ±1/√fan-in, factors of norms and layer scales around 1, biases around 0."""
    noise = around_zero(name, shape)
    if len(shape) < 2:
        return noise / np.float32(2) + np.float32(not name.endswith("bias"))
    fan_in = shape[-1] if shape[0] == 1 else math.prod(shape[1:])  # of tables of tokens: their width
    return noise * np.float32(2.0 ** (2 - fan_in.bit_length() // 2))


def trunks() -> dict[str, dict[str, Any]]:
    """Short name → ``name`` and ``options`` of the trunk, and the ``tensors`` (name → shape) of its weights file."""
    found: dict[str, dict[str, Any]] = json.loads((FILES / "trunks.json").read_text(encoding="utf-8"))
    return found


def write_trunk(short: str, folder: Path) -> Path:
    """The weights file of one trunk, ``trunks/SHORT.safetensors`` below a folder."""
    file = folder / "trunks" / f"{short}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight(name, shape) for name, shape in trunks()[short]["tensors"].items()}, file)
    return file


def picture(name: str, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: slopes, stripes and a little noise."""
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([5 * x + y, 3 * y + 200, 7 * (x // 8) * (y // 8)], -1) + zlib.crc32(name.encode()) % 97
    return (np.abs(slopes % 384 - 192) + hashed(name, (height, width, 3)) % 64).astype(np.uint8)


def pictures(count: int = 3) -> Tensor:
    """(count, 3, H, W) uint8, of :data:`SIZE`."""
    return torch.from_numpy(np.stack([picture(f"picture{n}", *SIZE) for n in range(count)])).permute(0, 3, 1, 2)


def write_pictures(folder: Path) -> None:
    """``pictures/``: six to train on and two to validate, with ids of three classes and depth in millimetres."""
    for split, count in (("train", 6), ("val", 2)):
        for kind in ("rgb", "seg", "depth"):
            (folder / "pictures" / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            values = picture(f"{split}{number}", 40, 48)
            ids = (values.astype(np.int64) // 86 @ np.array([1, 3, 1])) % 3
            ids[:4, : 8 * number] = 255
            depth = 500 + 15 * values[..., 0].astype(np.uint16)
            for kind, array in (("rgb", values), ("seg", ids.astype(np.uint8)), ("depth", depth)):
                Image.fromarray(array).save(folder / "pictures" / kind / split / f"{number}.png")
    shutil.copyfile(FILES / "data.yaml", folder / "pictures" / "data.yaml")


def opened(file: Path) -> np.ndarray:
    """A map's numbers as they are stored."""
    with Image.open(file) as image:
        return np.array(image)


def unpack(folder: Path) -> None:
    """A copy of all files, with the trunks and pictures that they name beside them."""
    shutil.copytree(FILES, folder, dirs_exist_ok=True)
    for short in trunks():
        write_trunk(short, folder)
    write_pictures(folder)
    Image.fromarray(picture("picture0", *SIZE)).save(folder / "picture0.png")


@torch.no_grad()
def move(model: Any) -> None:
    """Adapters, tuned parameters and heads away from where they start, running statistics too."""
    for name, tensor in model.own_tensors().items():
        if not tensor.is_floating_point():
            tensor.fill_(7)
            continue
        noise = torch.tensor(around_zero(name, tensor.shape))
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 16
        tensor.add_(noise / fan_in**0.5 if isinstance(tensor, nn.Parameter) else noise / 2)


@torch.no_grad()
def outputs(model: Any, mix: Sequence[Sequence[str]]) -> dict[str, Tensor]:
    """What a model makes of two pictures, all tasks, and of three that want different ones.

    Of each map every seventh pixel of every seventh row, and all pixels' mean and mean square, so that a file is small
    and no pixel is left out.
    """
    found: dict[str, Tensor] = {}
    for kind, given in (("all", model(pictures(2))), ("mix", model(pictures(3), [list(names) for names in mix]))):
        for task, values in given.items():
            found[f"{kind}.{task}"] = values[..., 3::7, 2::7].float().contiguous()
            found[f"{kind}.{task}.mean"] = values.double().mean((-2, -1)).float()
            found[f"{kind}.{task}.square"] = values.double().square().mean((-2, -1)).float()
    return found


def differences(found: Mapping[str, Tensor], recorded: Mapping[str, Tensor]) -> list[str]:
    """Names under which two sets of outputs are not the same, with by how much."""
    odd = [f"{name} is in one only" for name in sorted(found.keys() ^ recorded.keys())]
    for name in sorted(found.keys() & recorded.keys()):
        one, other = found[name], recorded[name]
        if one.shape != other.shape:
            odd.append(f"{name}: {tuple(one.shape)}, not {tuple(other.shape)}")
        elif not (far := float((one - other).abs().max() / other.abs().max())) <= RELATIVE:
            odd.append(f"{name}: {far:.2g}")
    return odd


def ends(state: Mapping[str, Tensor]) -> tuple[list[str], Tensor]:
    """Names of what a checkpoint's model holds, and of each tensor a row: its first four values, all's mean square."""
    names = sorted(name for name in state if not name.startswith("optimizer/"))
    rows = []
    for name in names:
        values = state[name].flatten().double()
        first = nn.functional.pad(values[:4], (0, 4 - min(values.numel(), 4)))
        rows.append(torch.cat([first, values.square().mean()[None]]))
    return names, torch.stack(rows).float()


def lacking(recorded: Any, found: Any, at: str = "") -> list[str]:
    """Where plain values lack something that was recorded or have another value; what came later is no matter."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        return [
            line
            for key, value in recorded.items()
            for line in (lacking(value, found[key], f"{at}.{key}") if key in found else [f"{at}.{key} is gone"])
        ]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        return [line for n, value in enumerate(recorded) for line in lacking(value, found[n], f"{at}.{n}")]
    return [] if recorded == found else [f"{at}: {recorded!r}, now {found!r}"]
