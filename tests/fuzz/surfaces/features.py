"""Files of the feature cache. A damaged one is refused; one that is sealed anew must still be of the right form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch
from torchvision import tv_tensors

import garnish as gn
from garnish.data.dataset import Sample
from garnish.engine.trunk_start import TrunkState
from garnish.training.feature_file import as_bytes, pack, read_features

from ..damage_files import another_kind, any_bytes, become, joined, metadata_of
from ..damage_values import damaged, dump_json
from ..surface import Damage, Surface
from ..verdicts import WrongReading

FILE = "ab.safetensors"
_FACTS, _ZEROS = "garnish.features", "0" * 64


class Features(Surface):
    """A picture with a label and the state of a trunk."""

    name: ClassVar[str] = "features"
    share: ClassVar[float] = 0.7

    def make(self, folder: Path) -> None:
        (folder / "one").mkdir()
        (folder / "one" / FILE).write_bytes(as_bytes(pack(_sample())))

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(2.0, any_bytes()), (0.5, another_kind()), (3.0, _facts), (2.0, _header)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        try:
            found = read_features(folder / FILE, _tasks())
        except OSError:  # the cache makes it again
            return
        if (folder / "sealed").exists():
            return
        if not _equal(found, _sample()):
            raise WrongReading("damage was taken for what was written")


def _tasks() -> dict[str, Any]:
    return {"seg": gn.Semantic(classes=5)}


def _sample() -> Sample:
    draw = torch.Generator().manual_seed(3)
    state = TrunkState.of_names({"x": torch.randn(1, 4, 6, generator=draw)}, {}, 2, (32, 48), (2, 3))
    image = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8, generator=draw)
    label = tv_tensors.Mask(torch.arange(32 * 48).reshape(32, 48) % 5)
    return Sample(tv_tensors.Image(image), {"seg": label}, "a.png", state)


def _equal(one: Sample, other: Sample) -> bool:
    if one.start is None or other.start is None:
        return False
    pairs = [(one.image, other.image), (one.targets["seg"], other.targets["seg"])]
    pairs += list(zip(dict(one.start.named()).values(), dict(other.start.named()).values(), strict=True))
    facts = (one.name, one.start.unit, tuple(one.start.grid)) == (other.name, other.start.unit, tuple(other.start.grid))
    return facts and all(torch.equal(a.as_subclass(torch.Tensor), b.as_subclass(torch.Tensor)) for a, b in pairs)


def seal(file: Path, header: Any, content: bytes, key: str, facts: str) -> None:
    """Write a safetensors file with facts in its metadata, whose digest is that of the whole."""
    told = facts if not facts.startswith("{") else f'{{"sha256": "{_ZEROS}", {facts[1:]}'
    text = dump_json({**header, "__metadata__": {key: told}} if isinstance(header, dict) else header)
    data = joined(text, content)
    digest = hashlib.sha256(data).hexdigest().encode()
    file.write_bytes(data.replace(_ZEROS.encode(), digest, 1))


def parts(file: Path, key: str) -> tuple[dict[str, Any], Any, bytes]:
    """The header without metadata, the facts without their digest, and the tensors' bytes of such a file."""
    data = file.read_bytes()
    header = metadata_of(data)
    facts = json.loads(header.pop("__metadata__")[key])
    facts.pop("sha256", None)
    return header, facts, data[8 + int.from_bytes(data[:8], "little") :]


def _facts(draw: Random, folder: Path) -> str:
    header, facts, content = parts(folder / FILE, _FACTS)
    facts, told = damaged(draw, facts)
    seal(folder / FILE, header, content, _FACTS, dump_json(facts))
    (folder / "sealed").write_text("")
    return f"facts{told}"


def _header(draw: Random, folder: Path) -> str:
    header, facts, content = parts(folder / FILE, _FACTS)
    header, told = damaged(draw, header)
    seal(folder / FILE, header, content, _FACTS, dump_json(facts))
    (folder / "sealed").write_text("")
    return f"header{told}"


def _became(how: str) -> Damage:
    return lambda draw, folder: become(folder / FILE, how) or ""


CRAFTED: dict[str, Damage] = {how: _became(how) for how in ("pipe", "/dev/zero", "sparse", "folder", "loop")}
