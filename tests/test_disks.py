"""A run whose disk is full or read-only ends in one line, and goes on when there is room as if nothing had been."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import garnish as gn
from garnish.errors import BundleError, GarnishError
from training_cases import PARTIAL, QUIET, Blobs, every, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def disk(tmp_path) -> Iterator[tuple[Path, Callable[[str], object]]]:
    """A file system of its own, and a function that mounts it otherwise."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system")
    try:
        yield place, lambda how: subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # a tensor may still lie in a file of it


def train(folder: Path, *, resume: bool = False, steps: int = 4) -> torch.Tensor:
    where = {"resume" if resume else "out": folder}
    options = {"steps": steps, "batch_size": 4, "check_pictures": 0, "eval_every": 2, "save_every": 1, **QUIET}
    result = gn.fit(tiny(), Blobs(PARTIAL), Blobs(every(2), seed=1), **where, **options)
    assert result.out == folder
    return load_file(folder / "best/weights.safetensors")


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def one_line(fault: pytest.ExceptionInfo[BaseException], told: str) -> bool:
    return told in str(fault.value) and "\n" not in str(fault.value)


def test_a_read_only_disk(disk, tmp_path):
    place, mount = disk
    whole = train(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patched, pytest.raises(ZeroDivisionError):
        inner = Blobs.__getitem__
        patched.setattr(Blobs, "__getitem__", lambda self, i: 1 / 0 if self.reads == 12 else inner(self, i))
        train(place / "run")
    before = contents(place)
    mount("ro")
    with pytest.raises(BundleError) as fault:
        train(place / "run", resume=True)
    assert one_line(fault, "Read-only file system") and contents(place) == before
    with pytest.raises(GarnishError) as fault:
        train(place / "new")
    assert one_line(fault, "Read-only file system") and not (place / "new").exists()
    mount("rw")
    found = train(place / "run", resume=True)
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_full_disk(disk, tmp_path):
    place, mount = disk
    whole = train(tmp_path / "run")
    size = sum(len(data) for data in contents(tmp_path / "run").values())
    mount(f"size={size // 2 // 4096 * 4}k")
    with pytest.raises(BundleError) as fault:
        train(place / "run")
    assert one_line(fault, "No space left on device")
    assert not list(place.rglob("*.writing")), "nothing half-written"
    mount("size=64m")
    found = train(place / "run", resume=True)
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)
