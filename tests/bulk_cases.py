"""Small bundles, pictures and shards for tests of bulk prediction, and what a folder of maps holds."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import garnish as gn

TASKS = {"seg": gn.Semantic(classes=["sky", "road", "car"]), "depth": gn.Depth(max_metres=9.0)}


def save_small(folder: Path) -> str:
    """A bundle on the trunk that comes with the package."""
    torch.manual_seed(0)
    gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=1), TASKS).save(folder)
    return str(folder)


def picture_bytes(seed: int, size: tuple[int, int] = (32, 40)) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def put_pictures(folder: Path, count: int, *, broken: int = 0, size: tuple[int, int] = (32, 40)) -> Path:
    """Pictures in three folders below one, some of them damaged."""
    for number in range(count + broken):
        file = folder / f"d{number % 3}" / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture_bytes(number, size) if number < count else b"no picture")
    return folder


def put_tar(file: Path, members: dict[str, bytes]) -> Path:
    """A tar file, as WebDataset's are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as shard:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    return file


def maps_of(folder: Path) -> dict[str, bytes]:
    """Name → bytes, of all that lies below a folder, without what bulk prediction keeps for itself."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {
        name: file.read_bytes()
        for file in files
        if not (name := file.relative_to(folder).as_posix()).startswith(".garnish-predict/")
    }
