"""Label files of every reader: ids, colours, depth, normals, binary maps, boundaries, packed numbers, arrays."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

import garnish as gn
from garnish.data.dataset import Sample
from garnish.tasks.task import Task

from ..damage_files import another_kind, any_bytes, become
from ..damage_values import dump_yaml
from ..specimens import CLASSES, picture
from ..surface import Damage, Surface
from ..verdicts import WrongReading

H, W = 32, 48


def _ids() -> np.ndarray:
    return picture(1).argmax(-1).astype(np.uint8)


def _normals() -> np.ndarray:
    raw = np.random.default_rng(0).normal(size=(H, W, 3))
    return raw / np.linalg.norm(raw, axis=-1, keepdims=True)


def specimens() -> dict[str, tuple[str, Any, dict[str, Any]]]:
    """Name → suffix, content, and the task's entry in the description."""
    ids, colours = _ids(), np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    paletted = Image.fromarray(ids).convert("P")
    depth = (500 + 10 * picture(2)[..., 0].astype(np.uint16)).astype(np.uint16)
    eight = ((_normals() + 1) * 127.5).astype(np.uint8)
    seg, depths = {"task": "Semantic", "classes": CLASSES}, {"task": "Depth", "max_metres": 5}
    return {
        "ids": ("png", ids, seg),
        "ids16": ("png", ids.astype(np.uint16), seg),
        "palette": ("png", paletted, seg),
        "ids_npy": ("npy", ids, seg),
        "ids_npy64": ("npy", ids.astype(np.int64), seg | {"map": {0: 0, 1: 1, 2: 2}}),
        "ids_tiff": ("tif", ids, seg),
        "ids_bmp": ("bmp", ids, seg),
        "ids_gif": ("gif", paletted, seg),
        "colours": (
            "png",
            colours[ids],
            seg | {"kind": "colours", "colours": dict(zip(CLASSES, colours.tolist(), strict=True))},
        ),
        "depth": ("png", depth, depths | {"unit": "mm"}),
        "depth_tiff": ("tif", (depth / 1000).astype(np.float32), depths),
        "depth_npy": ("npy", (depth / 1000).astype(np.float32), depths | {"invalid": "nan"}),
        "depth_pgm": ("pgm", depth, depths | {"unit": "mm"}),
        "packed": (
            "png",
            picture(3),
            {"task": "Depth", "max_metres": 100, "packed": [1, 256, 65536], "scale": 5.96e-6},
        ),
        "normals": ("png", eight, {"task": "Normals"}),
        "normals_npy": ("npy", _normals().astype(np.float32), {"task": "Normals", "axes": "x right, y up, z backward"}),
        "saliency": ("png", (ids > 0).astype(np.uint8) * 255, {"task": "Saliency", "threshold": 127.5}),
        "saliency_jpg": ("jpg", (ids > 0).astype(np.uint8) * 255, {"task": "Saliency", "threshold": 127.5}),
        "positive": ("png", ids, {"task": "Saliency", "positive": [1, 2]}),
        "edges": ("png", (ids > 1).astype(np.uint8) * 255, {"task": "Edges"}),
        "boundaries": ("png", ids, {"task": "Edges", "from": "boundaries"}),
    }


class Labels(Surface):
    """One picture and one label of each reader and format."""

    name: ClassVar[str] = "labels"
    share: ClassVar[float] = 1.5

    def make(self, folder: Path) -> None:
        for name, (suffix, content, entry) in specimens().items():
            place = folder / name
            (place / "rgb").mkdir(parents=True)
            (place / "l").mkdir()
            Image.fromarray(picture(1)).save(place / "rgb" / "a.png")
            file = place / "l" / f"a.{suffix}"
            if suffix == "npy":
                np.save(file, content)
            else:
                (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(file)
            plain = {"images": "rgb/*.png", "tasks": {"t": {**entry, "labels": f"l/{{name}}.{suffix}"}}}
            (place / "data.yaml").write_text(dump_yaml(plain))

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(5.0, any_bytes(_files)), (0.6, another_kind(_files)), (1.2, _other_picture), (2.0, _npy_header)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        made = gn.folder("data.yaml", "train")
        sample = made[0]
        check_sample(sample, made.tasks)
        second = made[0].targets["t"].as_subclass(torch.Tensor)
        if not torch.equal(torch.nan_to_num(second), torch.nan_to_num(sample.targets["t"].as_subclass(torch.Tensor))):
            raise WrongReading("read twice, it is another")
        _as_pillow(folder, sample)


def check_sample(sample: Sample, tasks: Mapping[str, Task]) -> None:
    """Pictures and targets have documented types, sizes and values."""
    image = sample.image.as_subclass(torch.Tensor)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise WrongReading(f"the picture is {image.dtype} {tuple(image.shape)}")
    for name, target in sample.targets.items():
        values = target.as_subclass(torch.Tensor)
        if values.shape[-2:] != image.shape[-2:]:
            raise WrongReading(f"{name} has size {tuple(values.shape)}, the picture {tuple(image.shape)}")
        task = tasks[name]
        kind = type(task).__name__
        if kind == "Semantic" and not ((values < task.channels) & (values >= 0) | (values == 255)).all():
            raise WrongReading(f"{name}: ids up to {values.max()} of {task.channels} classes")
        if kind in ("Saliency", "Edges") and not torch.isin(values.long(), torch.tensor([0, 1, 255])).all():
            raise WrongReading(f"{name}: values {values.unique()[:9].tolist()} of a binary map")
        if kind == "Depth" and (values.isinf().any() or (values < 0).any()):
            raise WrongReading(f"{name}: depth from {values.min()} to {values.max()}")
        if kind == "Normals":
            length = values.norm(dim=0)
            known = ~(length.isnan() | (length == 0))
            if values.isinf().any() or (known.any() and (length[known] - 1).abs().max() > 0.05):
                raise WrongReading(f"{name}: normals of length {length[known].min()} to {length[known].max()}")


def _as_pillow(folder: Path, sample: Sample) -> None:
    """Ids of 8 bits are what Pillow reads, where it does."""
    files = _files(folder)
    if (
        len(files) != 1
        or files[0].suffix not in (".png", ".bmp", ".tif")
        or "classes" not in (folder / "data.yaml").read_text()
    ):
        return
    if "colours" in (folder / "data.yaml").read_text():
        return
    with Image.open(io.BytesIO(files[0].read_bytes())) as image:
        if image.mode not in ("L", "P") or image.getexif().get(0x0112, 1) != 1:
            return
        theirs = torch.from_numpy(np.array(image)).long()
    if not torch.equal(theirs, sample.targets["t"].as_subclass(torch.Tensor).long()):
        raise WrongReading("other ids than Pillow reads")


# ---- damage -----------------------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "l").glob("a.*"))


def _other_picture(draw: Random, folder: Path) -> str:
    """Another sound picture under the label's name: other mode, size, values or format."""
    file = _files(folder)[0]
    shape = draw.choice([(H, W), (H, W), (W, H), (1, 1), (1, 5000), (H, W, 3), (H, W, 4), (H, W, 2)])
    kind = draw.choice([np.uint8, np.uint16, np.float32, np.int32, bool])
    if len(shape) == 3:
        kind = np.uint8
    values = np.random.default_rng(draw.randrange(9)).integers(0, draw.choice([2, 3, 256]), shape)
    content = values.astype(kind)
    if kind is np.float32:
        content[0, 0] = draw.choice([np.nan, np.inf, -np.inf, 1e38, -1.0])
    form = draw.choice(["png", "tiff", "jpeg", "webp", "bmp", "gif", "ppm", "npy"])
    made = io.BytesIO()
    try:
        np.save(made, content) if form == "npy" else Image.fromarray(content).save(made, form)
    except (OSError, TypeError, ValueError, KeyError):
        np.save(made, content)
    file.write_bytes(made.getvalue())
    return f"{form} {kind.__name__} {shape}"


_HEADERS = (
    *(
        "{'descr': '|O', 'fortran_order': False, 'shape': (32, 48)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
    ),
    *("{'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 10**9)}", "{'descr': '|u1', 'fortran_order': False}"),
    *(
        "{'descr': '|u1', 'fortran_order': True, 'shape': (32, 48)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': ()}",
    ),
    *(
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        "__import__('os').system('touch ran')",
    ),
    *(
        "{'descr': [('a', '<i4'), ('b', '|O')], 'fortran_order': False, 'shape': (3,)}",
        "[" * 5000,
        "{'descr': 1}",
        "-" * 9000,
    ),
    *(
        "{'descr': '|V1000000000', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<U1', 'fortran_order': 0, 'shape': (1,)}",
    ),
    *(
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (32, 48)}",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (32, 6)}",
    ),
    *(
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 48)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 48)}",
    ),
    *(
        "{'descr': '|u1', 'fortran_order': False, 'shape': 1536}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1.0,)}",
    ),
    *(
        "{'descr': '|u1\\x00', 'fortran_order': False, 'shape': (32, 48)}",
        "{'descr': 'garbage', 'fortran_order': 0, 'shape': (1,)}",
    ),
)


def npy(header: str, content: bytes = bytes(H * W), version: int = 1) -> bytes:
    """The bytes of an ``.npy`` file."""
    head = header.encode() + b"\n"
    length = struct.pack("<H", len(head)) if version == 1 else struct.pack("<I", len(head))
    return b"\x93NUMPY" + bytes([version, 0]) + length + head + content


def _npy_header(draw: Random, folder: Path) -> str:
    file = _files(folder)[0]
    if file.suffix != ".npy":
        return any_bytes(_files)(draw, folder)
    header = draw.choice(_HEADERS)
    file.write_bytes(npy(header, version=draw.choice([1, 1, 2, 3])))
    return f"header {header[:80]}"


def _replaced(data: bytes) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        _files(folder)[0].write_bytes(data)
        return ""

    return damage


def _became(how: str) -> Damage:
    return lambda draw, folder: become(_files(folder)[0], how) or ""


CRAFTED: dict[str, Damage] = {
    how: _became(how) for how in ("pipe", "/dev/zero", "sparse", "folder", "loop", "empty", "outside", "/dev/full")
}
