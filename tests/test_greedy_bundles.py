"""Small files that ask for much: no bundle makes memory, time or waiting that its own bytes do not explain."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import garnish as gn
from garnish import registry
from garnish.bundles.bundle_json import read_bundle_json
from garnish.checking.allocations import AllocationLimit
from garnish.commands.info import of_bundle
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.errors import BundleError
from garnish.training.float16_effect import holding

MIT = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
Facts = dict[str, Any]


def trunk() -> gn.Backbone:
    torch.manual_seed(0)
    return gn.backbone("mit_b0", options=MIT)


class Vector(Adapter):
    """Holds one tensor, or many."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.values = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)


@dataclass(frozen=True, kw_only=True)
class Greedy(Method):
    """A method of a third party, whose options have no bounds."""

    size: int = 1
    times: int = 1
    way: str = "zeros"

    def plan(self, backbone: Any) -> Plan:
        site = backbone.sites()[0].name
        if self.way == "zeros":
            return Plan({site: Vector(*[self.size] * self.times)})
        made = Vector(1)
        if self.way == "drawn":  # with a generator of its own, and from the values of what it drew
            drawn = torch.randn(64, generator=torch.Generator().manual_seed(3))
            made.register_buffer("kept", drawn[drawn > 0][: int((drawn > 0).sum()) // 2])
            return Plan({site: made})
        long = torch.zeros(self.size)
        wide = {
            "outer": lambda: torch.outer(long, long),
            "broadcast": lambda: long[:, None] + long,
            "expanded": lambda: long[:, None].expand(-1, self.size).clone(),
            "repeated": lambda: long.repeat(self.size),
            "drawn wide": lambda: torch.randn(self.size, self.size, generator=torch.Generator()),
            "counted": lambda: torch.arange(self.size**2),
        }
        made.register_buffer("wide", wide[self.way]())
        return Plan({site: made})


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.classes("adapters"), "Greedy", Greedy)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    model = gn.adapt(trunk(), gn.AdaptFormer(bottleneck=4), {"seg": gn.Semantic(classes=3)})
    return model.save(tmp_path / "bundle")


def edit(folder: Path, change: Callable[[Facts], object]) -> None:
    facts = json.loads((folder / "bundle.json").read_text())
    change(facts)
    (folder / "bundle.json").write_text(json.dumps(facts))
    (folder / "SHA256SUMS").unlink(missing_ok=True)


@contextmanager
def refused(match: str, *, megabytes: int = 300, seconds: float = 10.0) -> Iterator[None]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(BundleError, match=match) as caught:
        yield
    assert len(str(caught.value)) <= 2000 and "\n" not in str(caught.value)
    assert time.process_time() - start < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024 * megabytes


def method(facts: Facts) -> Facts:
    return facts["owners"][0]["methods"][0]  # type: ignore[no-any-return]


def ask(size: int, times: int = 1, way: str = "zeros") -> Callable[[Facts], object]:
    return lambda f: method(f).update(name="Greedy", options={"size": size, "times": times, "way": way})


MUCH: dict[str, Callable[[Facts], object]] = {
    "a wide tensor": ask(300_000_000),
    "many tensors": ask(1, 1_000_000),
    "many of some size": ask(100_000, 100_000),
    **{way: ask(30_000, way=way) for way in ("outer", "broadcast", "expanded", "repeated", "drawn wide", "counted")},
    "a head of many maps": lambda f: f["tasks"]["seg"].update(
        head={"name": "UPerHead", "options": {"pool_scales": list(range(1, 4001)), "channels": 4}}
    ),
    "a wide head": lambda f: f["tasks"]["seg"].update(head={"name": "SegFormerHead", "options": {"channels": 20_000}}),
}


@pytest.mark.usefixtures("greedy")
@pytest.mark.parametrize("what", MUCH)
def test_what_the_weights_do_not_hold_is_not_built(bundle: Path, what: str) -> None:
    edit(bundle, MUCH[what])
    with refused("bundle"):
        gn.load(bundle, backbone=trunk())
    with refused("bundle"):
        of_bundle(str(bundle), (32, 32))
    model = gn.Model(trunk())
    with refused("bundle"):
        model.load(bundle)
    assert not model.tasks and not model.owners


COUNTS: dict[str, Callable[[Facts], object]] = {
    r"owners\[0\].methods: 10,000 methods": lambda f: f["owners"][0].update(methods=[method(f)] * 10_000),
    "tasks: 3,001 tasks": lambda f: (
        f["tasks"].update({f"t{n}": f["tasks"]["seg"] for n in range(3000)}),
        f["owners"][0].update(tasks=list(f["tasks"])),
    ),
    r"methods\[0\].options: 10,003 values": lambda f: method(f)["options"].update(layers=["qkv"] * 9_997),
    "head.options: 5,000 values": lambda f: f["tasks"]["seg"]["head"].update(options={"a": [[1]] * 2_499 + [1]}),
    "more than 500,000 values": lambda f: f.update(metrics={"seg": {str(n): 0.0 for n in range(300_000)}}),
    "a text of 70,000 characters": lambda f: f["backbone"].update(licence="a" * 70_000),
    "backbone.weights_source: expected text": lambda f: f["backbone"].update(weights_source="a" * 5000),
    "versions.torch: expected text": lambda f: f["versions"].update(torch="2" * 200),
    "owner without tasks": lambda f: f["owners"].extend({"tasks": [], "methods": []} for _ in range(20_000)),
}


@pytest.mark.parametrize("says", COUNTS)
def test_counts_are_bounded_before_anything_is_built(bundle: Path, says: str) -> None:
    edit(bundle, COUNTS[says])
    with refused(says, seconds=3.0):
        read_bundle_json(bundle)


def replaced(bundle: Path, kind: str) -> None:
    file = bundle / "weights.safetensors"
    data = file.read_bytes()
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    else:
        with file.open("wb") as stream:
            stream.write(data)
            stream.truncate({"holes": 200 * 10**9, "holes as told": 10**10, "short": 100}[kind])


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "holes", "holes as told", "short"])
def test_weights_are_a_regular_file_of_the_size_that_is_told(bundle: Path, kind: str) -> None:
    replaced(bundle, kind)
    if kind == "holes as told":
        edit(bundle, lambda f: f["sizes"].update(weights_bytes=10**10))
    model = gn.adapt(trunk(), gn.AdaptFormer(bottleneck=4), {"seg": gn.Semantic(classes=3)})
    for read in (
        lambda: gn.load(bundle),  # before it is noticed that the trunk has random weights
        lambda: gn.load(bundle, backbone=trunk()),
        lambda: gn.Model(trunk()).load(bundle),
        lambda: of_bundle(str(bundle), (32, 32)),
        lambda: holding(model, bundle).__enter__(),
    ):
        with refused(r"weights.safetensors: (cannot be read|differs from what|is damaged)", seconds=3.0):
            read()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_the_list_of_digests_is_a_small_regular_file(bundle: Path, kind: str) -> None:
    (bundle / "SHA256SUMS").unlink()
    other = bundle / "SHA256SUMS"
    if kind == "pipe":
        os.mkfifo(other)
    elif kind == "device":
        other.symlink_to("/dev/zero")
    else:
        other.mkdir()
    with refused("SHA256SUMS: cannot be read", seconds=3.0):
        read_bundle_json(bundle)


def test_names_and_shapes_are_compared_before_the_weights_are_read(bundle: Path) -> None:
    file = bundle / "weights.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file(tensors | {name: torch.zeros(7)}, file)
    size = file.stat().st_size
    edit(bundle, lambda f: f["sizes"].update(weights_bytes=size))  # their digest is another, too
    with pytest.raises(BundleError, match=f"{name} has shape"):
        gn.load(bundle, backbone=trunk())
    with pytest.raises(BundleError, match=f"{name} has shape"):
        of_bundle(str(bundle), (32, 32))


@pytest.mark.usefixtures("greedy")
def test_methods_that_draw_and_look_at_values_load(tmp_path: Path) -> None:
    """Sizes that depend on values are not known beforehand; they are counted afterwards."""
    model = gn.adapt(trunk(), Greedy(way="drawn"), {"seg": gn.Semantic(classes=3)}).eval()
    model.save(tmp_path / "b", dtype="float32")
    again = gn.load(tmp_path / "b", backbone=trunk())
    kept = next(t for name, t in again.own_tensors().items() if name.endswith("kept"))
    assert kept.numel() > 4
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x)["seg"], model(x)["seg"])


def test_merge_waits_for_no_pipe(bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.safetensors")
    model = gn.adapt(trunk(), gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3)})
    with pytest.raises(BundleError, match="was not written by merge"):
        gn.merge(model, tmp_path / "out.safetensors")


# ---- the bound itself -------------------------------------------------------------------------------------------


class TooMuchError(BundleError):
    """Raised by the bound."""


def limited(most: int) -> AllocationLimit:
    return AllocationLimit(most, TooMuchError("too much"))


BEYOND: dict[str, Callable[[], object]] = {
    "empty": lambda: torch.empty(10**13),
    "full": lambda: torch.full((10**7, 10**6), 1.0),
    "linspace": lambda: torch.linspace(0, 1, 10**12),
    "eye": lambda: torch.eye(10**7),
    "new": lambda: torch.zeros(1).new_zeros(10**13),
    "like": lambda: torch.zeros(1).expand(10**13).clone(),
    "product": lambda: torch.zeros(10**6, 1) @ torch.zeros(1, 10**6),
    "padded": lambda: nn.functional.pad(torch.zeros(1), (0, 10**13)),
    "layer": lambda: nn.Linear(10**7, 10**6),
    "drawn": lambda: torch.rand(10**13, generator=torch.Generator()),
}


@pytest.mark.parametrize("way", BEYOND)
def test_an_operation_beyond_the_bound_does_not_run(way: str) -> None:
    with limited(10**8), pytest.raises(TooMuchError):
        BEYOND[way]()


def test_all_that_is_made_counts_and_views_and_writes_do_not() -> None:
    with limited(10 * 4096) as left:
        held = torch.zeros(1000)
        for _ in range(100):
            held.view(10, 100).t().mul_(2)
        for _ in range(9):
            torch.zeros(1)  # 4 bytes, and a page
        with pytest.raises(TooMuchError):
            torch.zeros(1)
        assert left is not None
    torch.zeros(10**6)  # no bound outside


def test_more_is_asked_for_once() -> None:
    asked = []
    with AllocationLimit(4096, TooMuchError("too much"), lambda: asked.append(1) or 8192):
        for _ in range(3):
            torch.zeros(1)
        with pytest.raises(TooMuchError):
            torch.zeros(1)
        with pytest.raises(TooMuchError):
            torch.zeros(1)
    assert asked == [1]


def test_what_depends_on_values_is_counted_afterwards() -> None:
    mask = torch.ones(100_000, dtype=torch.bool)
    with limited(10**6) as _:
        assert mask.nonzero().shape == (100_000, 1)
        with pytest.raises(TooMuchError):
            mask.nonzero()


def test_numbers_drawn_below_the_bound_are_the_same() -> None:
    torch.manual_seed(3)
    one = nn.Linear(20, 30).weight
    torch.manual_seed(3)
    with limited(10**8):
        other = nn.Linear(20, 30).weight
        drawn = torch.rand(9, generator=torch.Generator().manual_seed(5))
    assert torch.equal(one, other)
    assert torch.equal(drawn, torch.rand(9, generator=torch.Generator().manual_seed(5)))


def test_a_digest_of_other_bytes_is_still_noticed(bundle: Path) -> None:
    file = bundle / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="its SHA-256 is another"):
        gn.load(bundle, backbone=trunk())
    facts = json.loads((bundle / "bundle.json").read_text())
    assert facts["sha256"] != hashlib.sha256(bytes(data)).hexdigest()
