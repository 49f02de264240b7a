"""One flipped bit, wherever it is, is found; so is a file that is cut off, gone or strange. Nothing here is trained."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import tv_tensors

import garnish as gn
from garnish.bundles.bundle_json import read_bundle_json
from garnish.bundles.checkpoint import load_state, save_state
from garnish.bundles.tensors import read_tensors, weights_of
from garnish.comparing.store import has_picture, keep_json, keep_picture, kept_json
from garnish.data.dataset import Sample
from garnish.engine.trunk_start import TrunkState
from garnish.errors import BundleError, DataError
from garnish.tasks.semantic import Semantic
from garnish.training.feature_file import as_bytes, pack, read_features
from training_cases import moved, tiny

DAMAGED = (BundleError, DataError)
CONTENT = {"status": "done", "best_step": 7, "history": [{"step": 7, "score": 0.5}], "seconds": None}


def flips(data: bytes, count: int, seed: int = 0) -> list[bytes]:
    """The data with one bit flipped: near its beginning, near its end, and anywhere."""
    draw = random.Random(seed)
    places = [draw.randrange(len(data)) for _ in range(count)]
    places += [draw.randrange(min(len(data), 400)) for _ in range(count)]
    places += [len(data) - 1 - draw.randrange(min(len(data), 100)) for _ in range(count // 4)]
    found = []
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        found.append(bytes(changed))
    return found


def cuts(data: bytes, count: int) -> list[bytes]:
    draw = random.Random(1)
    return [b"", data[:-1], data + b"\0", data + b"\n"] + [data[: draw.randrange(len(data))] for _ in range(count)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def assert_found(file: Path, look: Callable[[], Any], damaged: list[bytes], *, may_be_as_it_was: bool = False) -> None:
    """Every damaged content is refused in one line; what is read is as it was, where the damage is beside it."""
    whole, before = file.read_bytes(), look()
    assert same(look(), before)
    for data in damaged:
        file.write_bytes(data)
        try:
            found = look()
        except DAMAGED as error:
            assert "\n" not in str(error) and file.parent.name in str(error)
        else:
            assert may_be_as_it_was and same(found, before), f"{file.name}: damage was taken for a result"
    file.write_bytes(whole)
    assert same(look(), before)


# ---- bundles ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    return moved(tiny()).save(tmp_path / "bundle", metrics={"seg": {"miou": 0.5}})


def contents(folder: Path) -> dict[str, Any]:
    facts = read_bundle_json(folder)
    return {"facts": facts, "tensors": read_tensors(weights_of(folder, facts), str(folder))}


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors", "SHA256SUMS"])
def test_a_bundle(bundle, name):
    file = bundle / name
    damaged = flips(file.read_bytes(), 60) + cuts(file.read_bytes(), 10)
    # of the list the line of the weights counts for people only: their digest stands in the description
    assert_found(file, lambda: contents(bundle), damaged, may_be_as_it_was=name == "SHA256SUMS")
    if name != "SHA256SUMS":
        file.unlink()
        with pytest.raises(BundleError, match=r"no such|holds no|cannot be read"):
            contents(bundle)


def test_what_is_loaded_is_what_was_checked(bundle):
    """The command that a user gives, one bit off in each file."""
    options = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
    for name in ("bundle.json", "weights.safetensors"):
        whole = (bundle / name).read_bytes()
        changed = bytearray(whole)
        changed[-9] ^= 4
        (bundle / name).write_bytes(bytes(changed))
        with pytest.raises(BundleError, match=rf"{name}: differs from what was saved .*; copy or save it again$"):
            torch.manual_seed(3)
            gn.load(bundle, backbone=gn.backbone("vit_tiny_patch16_224", options=options))
        (bundle / name).write_bytes(whole)


def test_the_list_is_what_sha256sum_reads(bundle):
    told = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True, check=False)
    assert told.returncode == 0 and told.stdout == "bundle.json: OK\nweights.safetensors: OK\n"
    assert sorted(file.name for file in bundle.iterdir()) == ["SHA256SUMS", "bundle.json", "weights.safetensors"]


def test_a_list_is_taken_as_sha256sum_takes_it(bundle):
    before, file = contents(bundle), bundle / "SHA256SUMS"
    text = file.read_text()
    capitals = "".join(f"{line[:64].upper()}{line[64:]}\n" for line in text.splitlines())
    for other in (text + "\n", "\n" + text, capitals, text.replace("  ", "  ./"), text.replace("  ", " *")):
        file.write_bytes(other.encode())
        assert (
            subprocess.run(["sha256sum", "-c", file.name], cwd=bundle, capture_output=True, check=False).returncode == 0
        )
        assert same(contents(bundle), before)


def test_bundles_of_earlier_versions_and_files_of_others(bundle):
    before = contents(bundle)
    (bundle / "notes.txt").write_text("mine")
    assert same(contents(bundle), before)
    (bundle / "SHA256SUMS").unlink()
    assert same(contents(bundle), before)
    changed = moved(moved(tiny()))
    changed.save(bundle)  # in place of one that has no list, and beside another's file
    assert not same(contents(bundle), before) and (bundle / "notes.txt").read_text() == "mine"
    changed.save(bundle)
    contents(bundle)


# ---- checkpoints, and what a comparison keeps -------------------------------------------------------------------


def test_a_checkpoint(tmp_path):
    tensors = {"model/a": torch.randn(40), "optimizer/a": torch.randn(3, 5).double(), "sha256": torch.arange(7)}
    digest = {"sha256": "0" * 64}
    facts = {"step": 3, "note": json.dumps(digest), "a": digest, "rate": float("inf"), "b": f':"{json.dumps(digest)}'}
    file = save_state(tmp_path / "last" / "state.safetensors", tensors, facts)
    data = file.read_bytes()
    assert_found(file, lambda: dict(zip("tf", load_state(file), strict=True)), flips(data, 150) + cuts(data, 20))
    assert load_state(file)[1] == facts
    save_state(file, tensors, facts)
    assert file.read_bytes() == data  # the same state is the same file


def test_all_of_a_large_checkpoint_is_covered(tmp_path):
    """It is read in pieces; a bit of the last one is as good as one of the first."""
    file = tmp_path / "state.safetensors"
    save_state(file, {"large": torch.arange(1_000_000, dtype=torch.float32)}, {})
    assert torch.equal(load_state(file)[0]["large"], torch.arange(1_000_000, dtype=torch.float32))
    whole = file.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2, 1 << 21):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BundleError):
            load_state(file)


def test_a_checkpoint_of_an_earlier_version(tmp_path):
    save_file({"x": torch.arange(3)}, tmp_path / "old", {"garnish.facts": '{"step": 4}'})
    tensors, facts = load_state(tmp_path / "old")
    assert tensors["x"].tolist() == [0, 1, 2] and facts == {"step": 4}


def test_a_result(tmp_path):
    file = tmp_path / "runs" / "result.json"
    keep_json(file, CONTENT)
    whole = file.read_bytes()
    assert kept_json(file) == CONTENT and json.loads(whole) == {"sha256": json.loads(whole)["sha256"], **CONTENT}
    for data in flips(whole, 150) + cuts(whole, 20):
        file.write_bytes(data)
        assert kept_json(file) is None, data
    file.unlink()
    assert kept_json(file) is None
    file.write_text(json.dumps(CONTENT, indent=1) + "\n")  # of an earlier version
    assert kept_json(file) == CONTENT


def test_a_picture(tmp_path):
    file = tmp_path / "seg-0.png"
    whole = np.random.default_rng(0).bytes(500)
    assert not has_picture(file)
    keep_picture(file, whole)
    assert has_picture(file)
    for data in flips(whole, 20) + cuts(whole, 5):
        file.write_bytes(data)
        assert not has_picture(file)
    file.write_bytes(whole)
    beside = tmp_path / "seg-0.png.sha256"
    listed = beside.read_bytes()
    assert (
        subprocess.run(["sha256sum", "-c", beside.name], cwd=tmp_path, capture_output=True, check=False).returncode == 0
    )
    for data in flips(listed, 20) + cuts(listed, 5):
        beside.write_bytes(data)
        assert not has_picture(file)
    beside.unlink()
    assert has_picture(file)  # of an earlier version


# ---- kept features ----------------------------------------------------------------------------------------------


TASKS = {"seg": Semantic(classes=5)}


def kept_sample() -> Sample:
    state = TrunkState.of_names({"x": torch.randn(1, 4, 6)}, {}, 2, (32, 48), (2, 3))
    image = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)
    return Sample(
        tv_tensors.Image(image), {"seg": tv_tensors.Mask(torch.arange(32 * 48).reshape(32, 48) % 5)}, "a.png", state
    )


def look_at(file: Path) -> dict[str, Any]:
    sample = read_features(file, TASKS)
    assert sample.start is not None
    return {
        "image": sample.image.as_subclass(torch.Tensor),
        "seg": sample.targets["seg"].as_subclass(torch.Tensor),
        "name": sample.name,
        "unit": sample.start.unit,
        "grid": tuple(sample.start.grid),
        **dict(sample.start.named()),
    }


def test_kept_features(tmp_path):
    file = tmp_path / "features" / "ab.safetensors"
    file.parent.mkdir()
    data = as_bytes(pack(kept_sample()))
    file.write_bytes(data)
    assert_found(file, lambda: look_at(file), flips(data, 150) + cuts(data, 20))


def test_kept_features_of_an_earlier_version(tmp_path):
    from garnish.training.feature_file import _FACTS, _sums

    tensors, facts = pack(kept_sample())
    file = tmp_path / "old.safetensors"
    save_file(tensors, file, {_FACTS: json.dumps({**facts, "sums": _sums(tensors)})})
    assert look_at(file)["name"] == "a.png"
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(bytes(changed))
    with pytest.raises(
        DataError,
        match=r"old.safetensors: is damaged \(it has another format, or other sums than it was .*\); delete it",
    ):
        read_features(file, TASKS)
