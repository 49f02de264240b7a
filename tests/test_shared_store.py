"""Changes of bundles over several stores that follow one ledger, in one process: as under Ray, without it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garnish.errors import BundleError
from garnish.serving import shared_store
from garnish.serving.bundle_store import BundleStore
from garnish.serving.change_ledger import ChangeLedger
from garnish.serving.refusals import Busy, UnknownBundle
from garnish.serving.shared_store import SharedStore
from serving_fakes import FakeEngine, wait_for, write_bundle


class Handle:
    """A deployment's handle, whose methods run in a loop of this process."""

    def __init__(self, of: object, loop: asyncio.AbstractEventLoop) -> None:
        self.of, self.loop, self.is_dead = of, loop, False

    def __getattr__(self, method: str) -> Any:
        def remote(*args: object) -> Any:
            if self.is_dead:
                raise ConnectionError("no such actor")
            future = asyncio.run_coroutine_threadsafe(getattr(self.of, method)(*args), self.loop)
            return type("Response", (), {"result": staticmethod(lambda timeout_s: future.result(timeout_s))})

        return type("Method", (), {"remote": staticmethod(remote)})


class Cluster:
    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.folder, self.loop, self.stores = folder, loop, dict[str, SharedStore]()
        self.all, self.followers = list[SharedStore](), list[threading.Thread]()
        self.start = write_bundle(folder / "start" / "street", 1, 8)
        self.ledger = Handle(ChangeLedger(["street"], "one", str(folder / "uploads"), 10**6), loop)

    def join(self, name: str, memory: int = 10**6, follows: bool = True) -> SharedStore:
        own = BundleStore(FakeEngine(), memory=memory, uploads=self.folder / name, max_upload=10**6)
        own.add("street", self.start)
        made = self.stores[name] = SharedStore(own, self.ledger, name, None, lambda: f"of {name}")
        self.all.append(made)
        made.catch_up()
        if follows:
            self.followers.append(threading.Thread(target=made.follow, daemon=True))
            self.followers[-1].start()
        return made

    def shifts(self, name: str) -> list[int | None]:
        return [shift_of(store, name) for store in self.stores.values()]


def shift_of(store: SharedStore, name: str) -> int | None:
    try:
        with store.using([name]) as (loaded,):
            return loaded.handle
    except UnknownBundle:
        return None


def files(shift: int) -> dict[str, bytes]:
    return {"bundle.json": b'{"shift": %d, "size": 8}' % shift, "weights.safetensors": b"\0" * 8}


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = Cluster(tmp_path, loop)
    yield made
    for store in made.all:
        store.close()
    made.ledger.is_dead = True

    async def cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(cancel(), loop).result(10)
    for follower in made.followers:
        follower.join(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_when_a_change_is_answered_all_replicas_have_it(cluster):
    a, b = cluster.join("a"), cluster.join("b")
    a.put("street", files(5))
    assert cluster.shifts("street") == [5, 5]
    b.put("new", files(6))
    assert cluster.shifts("new") == [6, 6]
    a.remove("street")
    assert cluster.shifts("street") == [1, 1]  # what the start names is served again
    b.remove("street")
    assert cluster.shifts("street") == [None, None]
    assert cluster.join("late").names() == ("new",)


def test_what_one_refuses_is_refused_and_nothing_has_changed(cluster):
    a = cluster.join("a")
    cluster.join("b")
    with pytest.raises(BundleError):
        a.put("street", {"bundle.json": b"{", "weights.safetensors": b""})
    with pytest.raises(UnknownBundle):
        a.remove("none")
    assert cluster.shifts("street") == [1, 1] and cluster.ledger.of._turn is None


def test_many_who_change_at_once_leave_all_with_the_same(cluster):
    stores = [cluster.join(name) for name in "abc"]
    answered = []

    def change(store: SharedStore, first: int) -> None:
        for number in range(first, first + 6):
            with contextlib.suppress(UnknownBundle):
                if number % 3 == 2:
                    store.remove("street" if number % 2 else "new")
                else:
                    store.put("street" if number % 2 else "new", files(number))
                answered.append(number)

    threads = [threading.Thread(target=change, args=(store, 100 * place)) for place, store in enumerate(stores, 1)]
    for thread in threads:
        thread.start()
    cluster.join("late")
    for thread in threads:
        thread.join()
    for name in ("street", "new"):
        assert len(set(cluster.shifts(name))) == 1, (name, cluster.shifts(name))
    assert len(answered) >= 12 and not any(store.torn for store in cluster.stores.values())


def test_a_replica_that_does_not_follow_is_told_and_nothing_is_said_to_be_done(cluster, monkeypatch):
    pytest.importorskip("ray", reason="whether an actor lives is asked of Ray")
    monkeypatch.setattr(shared_store, "_FOLLOW_SECONDS", 0.3)
    a, b = cluster.join("a"), cluster.join("b", follows=False)
    with pytest.raises(Busy, match="the change is made, but 1 replica did not follow within"):
        a.put("street", files(5))
    assert cluster.shifts("street") == [5, 1]
    b.catch_up()
    assert cluster.shifts("street") == [5, 5]


def test_without_a_ledger_nothing_changes(cluster):
    a = cluster.join("a", follows=False)
    cluster.ledger.is_dead = True
    with pytest.raises(Busy, match="the ledger does not answer"):
        a.put("street", files(5))
    assert cluster.shifts("street") == [1] and not a.torn


def test_a_replica_that_cannot_do_what_another_did_says_so(cluster):
    a, b = cluster.join("a"), cluster.join("b", memory=9)
    big = {"bundle.json": b'{"shift": 2, "size": 100}', "weights.safetensors": b"\0" * 8}
    asking = threading.Thread(target=a.put, args=("big", big), daemon=True)
    asking.start()
    wait_for(lambda: b.torn)
    cluster.ledger.of._replicas.pop("b")  # Serve ends it, and nobody waits for it
    asking.join(10)
    assert "cannot be made here" in b.torn and "more than the 9" in b.torn


def test_a_ledger_that_starts_anew_goes_on_where_it_was(cluster):
    a = cluster.join("a", follows=False)
    a.put("new", files(5))
    a.put("gone", files(6))
    a.remove("gone")
    a.remove("street")
    cluster.ledger.of = ChangeLedger(["street"], "one", str(cluster.folder / "uploads"), 10**6)
    a.put("new", files(7))
    assert cluster.join("b", follows=False).names() == ("new",) and cluster.shifts("new") == [7, 7]


def test_uploads_outlive_the_application_and_what_was_taken_away_comes_back_with_it(cluster):
    a = cluster.join("a", follows=False)
    a.put("new", files(5))
    a.remove("street")
    cluster.ledger.of = ChangeLedger(["street"], "two", str(cluster.folder / "uploads"), 10**6)
    cluster.stores.clear()
    assert cluster.join("b", follows=False).names() == ("new", "street")


def test_a_ledger_that_lost_its_log_is_noticed(cluster, tmp_path):
    a = cluster.join("a", follows=False)
    a.put("new", files(5))
    cluster.ledger.of = ChangeLedger(["street"], "one", str(tmp_path / "elsewhere"), 10**6)
    with pytest.raises(Busy, match="has lost changes: it knows 0 of 1"):
        a.put("new", files(6))
    assert "lost" in a.torn


def test_metrics_of_all_replicas_come_together(cluster):
    for name in "ab":
        cluster.join(name)
    assert cluster.ledger.metrics.remote(5.0).result(timeout_s=10) == {"a": "of a", "b": "of b"}
