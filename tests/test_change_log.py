"""The log of changes: whoever follows it, from whenever, ends with what one server would have that got all of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from garnish.errors import BundleError
from garnish.serving.bundle_store import BundleStore
from garnish.serving.change_log import BundleChange, ChangeLog, NumberedChange
from garnish.serving.refusals import UnknownBundle
from serving_fakes import FakeEngine, write_bundle

NAMES = ("named", "found", "both", "new")


def files(shift: int) -> dict[str, bytes]:
    return {"bundle.json": b'{"shift": %d, "size": 8}' % shift, "weights.safetensors": b"\0" * 8}


class Follower:
    """A store of its own, as a server and as each replica has one; ``named`` and ``both`` are named at the start."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.store = BundleStore(
            FakeEngine(), memory=10**6, uploads=folder / "uploads", root=shared / "root", max_upload=10**6
        )
        for name in ("named", "both"):
            self.store.add(name, shared / "start" / name)
        self.applied = 0

    def apply(self, change: BundleChange) -> None:
        if change.kind == "upload":
            self.store.put(change.name, files(int(change.mark)))
        elif change.kind == "from":
            self.store.put_from(change.name, change.folder)
        else:
            self.store.remove(change.name)

    def follow(self, entries: list[NumberedChange], last: int) -> None:
        for entry in entries:
            self.apply(entry.change)
        self.applied = last

    def state(self) -> dict[str, str]:
        found = {}
        for name in NAMES:
            try:
                with self.store.using([name]) as (loaded,):
                    found[name] = loaded.sha256
            except UnknownBundle:
                found[name] = "nothing"
        return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    for shift, name in enumerate(("start/named", "start/both", "root/found", "root/both", "root/other")):
        write_bundle(folder / name, 100 + shift, 8)
    return folder


def drawn(draw: random.Random, number: int) -> BundleChange:
    name = draw.choice(NAMES)
    kind = draw.choice(("upload", "upload", "from", "remove", "remove"))
    folder = draw.choice(("found", "both", "other")) if kind == "from" else ""
    return BundleChange(kind, name, folder, str(number) if kind == "upload" else "")


@pytest.mark.parametrize("seed", range(12))
def test_followers_end_as_one_server_would(shared, tmp_path, seed):
    draw, log = random.Random(seed), ChangeLog(("named", "both"))
    single = Follower(tmp_path / "single", shared)
    followers = [Follower(tmp_path / "f0", shared)]
    for number in range(1, 40):
        change = drawn(draw, number)
        try:
            single.apply(change)
        except (UnknownBundle, BundleError):
            continue  # what one server refuses comes into no log
        log.add(change)
        for one in followers:
            if draw.random() < 0.3:
                one.follow(log.after(one.applied), log.last)
        if draw.random() < 0.1:
            followers.append(Follower(tmp_path / f"f{number}", shared))
        if draw.random() < 0.2:
            log.forget(min(one.applied for one in followers))
        if draw.random() < 0.2:
            (again := ChangeLog(("named", "both"))).read(log.facts())
            log = again
    followers.append(Follower(tmp_path / "late", shared))
    for one in followers:
        one.follow(log.after(one.applied), log.last)
    wanted = single.state()
    assert [one.state() for one in followers] == [wanted] * len(followers)
    numbers = {name: int(mark, 16) for name, mark in wanted.items() if mark != "nothing"}
    assert log.uploads() == {name: str(shift) for name, shift in numbers.items() if shift < 100}


def test_it_is_as_long_as_what_is_served():
    log = ChangeLog(())
    for _ in range(100):
        log.add(BundleChange("upload", "a", mark="1"))
        log.add(BundleChange("remove", "a"))
    log.add(BundleChange("upload", "b", mark="1"))
    log.add(BundleChange("upload", "b", mark="2"))
    log.forget(log.last)
    assert [(one.number, one.change.name, one.change.mark) for one in log.after(0)] == [(202, "b", "2")]
    assert log.uploads() == {"b": "2"}
