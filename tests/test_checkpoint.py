"""Training states: every bit comes back, and a kill at any moment leaves one whole file."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from garnish.bundles.checkpoint import flatten, load_state, save_state, unflatten
from garnish.errors import BundleError
from garnish.files import atomic

TENSORS = {
    "a.weight": torch.randn(3, 4).t(),  # not contiguous
    "half": torch.tensor([1e-8, 65504.0], dtype=torch.float16),
    "brain": torch.randn(5).bfloat16(),
    "double": torch.tensor(0.1, dtype=torch.float64),
    "random state": torch.get_rng_state(),
    "nothing": torch.zeros(0, 3),
    "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
}
FACTS = {"step": 3, "best": float("-inf"), "rate": 0.1 + 0.2, "names": ["seg", "Tiefe ü"], "none": None, "yes": True}


def test_every_bit_comes_back(tmp_path):
    shared = torch.randn(4)
    tensors = {**TENSORS, "one": shared, "two": shared}
    assert (
        save_state(tmp_path / "runs" / "state.safetensors", tensors, FACTS) == tmp_path / "runs" / "state.safetensors"
    )
    found, facts = load_state(tmp_path / "runs" / "state.safetensors")
    assert facts == FACTS
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        bits = (t.contiguous().view(-1).view(torch.uint8) for t in (tensor, found[name])) if tensor.numel() else ()
        assert not bits or torch.equal(*bits), name
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("make", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_optimizer_state_survives_flattening(tmp_path, make):
    named = {"adapters.seg+depth.stages.0.blocks.1.attn.qkv.0.lora_a": torch.nn.Parameter(torch.randn(2, 3)),
             "heads.seg.bias": torch.nn.Parameter(torch.randn(3))}  # fmt: skip
    optimizer = make(list(named.values()))
    sum(p.square().sum() for p in named.values()).backward()
    optimizer.step()
    nested = {name: optimizer.state[parameter] for name, parameter in named.items()}
    nested["odd"] = {"step": 3, "lr": 0.1, "amsgrad": False, "max": None}
    nested["empty"] = {}
    tensors, numbers = flatten(nested)
    save_state(tmp_path / "s", tensors, {"optimizer": numbers})
    tensors, facts = load_state(tmp_path / "s")
    back = unflatten(tensors, facts["optimizer"])
    assert back.keys() == nested.keys()
    for name, entries in nested.items():
        assert back[name].keys() == entries.keys()
        for key, value in entries.items():
            same = torch.equal(back[name][key], value) if isinstance(value, torch.Tensor) else back[name][key] == value
            assert same, (name, key)
    with pytest.raises(BundleError, match="'other/exp_avg' belongs to no entry"):
        unflatten({"other/exp_avg": torch.zeros(1)}, facts["optimizer"])


def test_a_kill_at_any_call_leaves_one_whole_file(tmp_path):
    path = tmp_path / "state"
    states = []
    for calls in range(20):
        save_state(path, {"x": torch.zeros(100)}, {"step": 1})
        child = os.fork()
        if child == 0:
            passed = 0

            def counted(call):
                def run(*args, **kwargs):
                    nonlocal passed
                    passed += 1
                    if passed > calls:  # noqa: B023 (the child ends within its own turn)
                        os._exit(9)
                    return call(*args, **kwargs)

                return run

            os.fsync, os.replace, atomic.Path.open = map(counted, (os.fsync, os.replace, atomic.Path.open))
            save_state(path, {"x": torch.ones(100)}, {"step": 2})
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        tensors, facts = load_state(path)
        assert (tensors["x"].mean().item(), facts["step"]) in ((0, 1), (1, 2))
        states.append(facts["step"])
        if not died:
            break
    assert not died and states == sorted(states) and states[0] == 1 and states[-1] == 2 and calls >= 3
    save_state(path, {}, {"step": 3})
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_full_disk_leaves_the_former_state(tmp_path):
    path = tmp_path / "state"
    save_state(path, {"x": torch.zeros(10)}, {"step": 1})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(BundleError, match=r"cannot be written .*former state is untouched") as caught:
            save_state(path, {"x": torch.zeros(10_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["state"]


def test_what_is_not_a_state_is_refused(tmp_path):
    with pytest.raises(BundleError, match="no such state file"):
        load_state(tmp_path / "none")
    save_file({"x": torch.zeros(1)}, tmp_path / "plain")
    with pytest.raises(BundleError, match="is not a training state"):
        load_state(tmp_path / "plain")
    save_state(tmp_path / "whole", {"x": torch.zeros(100)}, {})
    data = (tmp_path / "whole").read_bytes()
    for number, damaged in enumerate((b"", data[:5], data[:60], data[:-8], b"\x80\x04pickle" * 20)):
        (tmp_path / f"{number}").write_bytes(damaged)
        with pytest.raises(BundleError, match="is damaged") as caught:
            load_state(tmp_path / f"{number}")
        assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="cannot be written as JSON"):
        save_state(tmp_path / "facts", {}, {"x": torch.zeros(1)})
    assert not (tmp_path / "facts").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files in /proc")
def test_what_is_renamed_is_on_the_disk_before_and_the_rename_after(tmp_path, monkeypatch):
    synced: list[Path] = []
    inner = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        inner(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.write_file(tmp_path / "file", b"x")
    assert [(p.parent, p.name) for p in synced] == [(tmp_path, ".file.writing"), (tmp_path.parent, tmp_path.name)]
    for _ in range(2):  # new, and in place of another
        synced.clear()
        atomic.write_folder(tmp_path / "folder", {"a": b"x", "b": b"y"})
        new = tmp_path / ".folder.writing"
        assert synced == [new / "a", new / "b", new, tmp_path]


def test_writers_of_one_file_or_folder_do_not_meet(tmp_path, monkeypatch):
    """Threads stand for processes: each writer has a lock of its own, and temporary files have fixed names."""
    inner, faults = atomic._write, []

    def slow(file, data, **how):
        inner(file, data[:10], **how)
        time.sleep(0.01)
        inner(file, data, **how)

    monkeypatch.setattr(atomic, "_write", slow)

    def write(letter: bytes) -> None:
        try:
            for _ in range(4):
                atomic.write_file(tmp_path / "file", letter * 100)
                atomic.write_folder(tmp_path / "folder", {"a": letter * 100, "b": letter * 50})
        except OSError as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"x", b"y", b"z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(set((tmp_path / "file").read_bytes())) == 1
    assert len({file.read_bytes()[:1] for file in (tmp_path / "folder").iterdir()}) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_kill_after_the_former_state_was_kept_leaves_nothing(tmp_path):
    """Both names are links to one file then, and renaming one to the other does nothing."""
    for number in range(2):
        save_state(tmp_path / "state", {"x": torch.tensor(number)}, {}, keep="earlier")
    (tmp_path / "earlier").unlink()
    (tmp_path / "earlier").hardlink_to(tmp_path / "state")
    save_state(tmp_path / "state", {"x": torch.tensor(2)}, {}, keep="earlier")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["earlier", "state"]
    assert [int(load_state(tmp_path / name)[0]["x"]) for name in ("earlier", "state")] == [1, 2]
