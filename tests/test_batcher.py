"""The queue of rows: what shares a pass, whose turn it is, who is refused, and that one bad row fails alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from garnish.errors import GarnishError
from garnish.serving.asked import Ticket
from garnish.serving.batcher import Batcher
from garnish.serving.engine import Loaded, Row
from garnish.serving.refusals import Abandoned, Busy
from serving_fakes import FakeEngine, wait_for, write_bundle


class Held:
    """An engine whose first pass is held until :meth:`go`, with a batcher and one row that is in that pass."""

    def __init__(self, tmp_path: Path, **options: int) -> None:
        self.engine = FakeEngine()
        self.bundle = self.engine.load("a", write_bundle(tmp_path / "a"))
        self.engine.gate.clear()
        self.batcher = Batcher(self.engine, **options)
        self.first = self.batcher.submit(self.row(0), Ticket.within(60))
        wait_for(lambda: self.batcher.counts().queued == 0)

    def row(self, level: int, side: int = 4) -> Row:
        return row_of(self.bundle, level, side)

    def go(self) -> None:
        self.engine.gate.set()
        self.batcher.close()

    def levels(self) -> list[list[int]]:
        """Of each pass, the level of each row."""
        return [[int(row.picture[0, 0, 0]) for row in rows] for rows in self.engine.passes]


def row_of(bundle: Loaded, level: int, side: int = 4) -> Row:
    return Row(np.full((3, side, side), level, np.uint8), ((bundle, ("seg",)),))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    made = FakeEngine()
    made.bundle = made.load("a", write_bundle(tmp_path / "a"))  # type: ignore[attr-defined]
    yield made


def test_what_waits_with_the_key_of_the_first_shares_its_pass_up_to_batch(tmp_path):
    held = Held(tmp_path, batch=3)
    futures = [held.batcher.submit(held.row(level, side), Ticket.within(60)) for level, side in
               ((1, 4), (2, 8), (3, 4), (4, 4), (5, 4), (6, 8))]  # fmt: skip
    held.go()
    assert held.levels() == [[0], [1, 3, 4], [2, 6], [5]]
    for level, future in zip((1, 2, 3, 4, 5, 6), futures, strict=True):
        assert future.result()["a", "seg"].max() == np.float32(level / 255)


def test_a_lone_row_waits_for_nobody(engine):
    batcher = Batcher(engine, batch=8)
    began = time.monotonic()
    batcher.submit(row_of(engine.bundle, 1), Ticket.within(60)).result()
    assert time.monotonic() - began < 0.5
    batcher.close()


def test_a_request_of_many_windows_holds_up_nobody(tmp_path):
    held = Held(tmp_path, batch=2)
    many = Ticket.within(60)
    with held.batcher.holding(many):
        for level in range(10, 20):
            held.batcher.submit(held.row(level), many)
        for level in (1, 2, 3):
            held.batcher.submit(held.row(level), Ticket.within(60))
    held.go()
    # each pass takes one row of each request in turn; alone again, the many windows fill passes
    assert held.levels() == [[0], [10, 1], [2, 3], [11, 12], [13, 14], [15, 16], [17, 18], [19]]


def test_rows_of_a_rare_size_have_their_turn(tmp_path):
    held = Held(tmp_path, batch=2)
    for level in (1, 2, 3, 4, 5):
        held.batcher.submit(held.row(level), Ticket.within(60))
        if level == 2:
            held.batcher.submit(held.row(9, 8), Ticket.within(60))
    held.go()
    assert held.levels() == [[0], [1, 2], [9], [3, 4], [5]]


def test_rows_of_many_bytes_do_not_share_a_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("garnish.serving.batcher._MOST_BYTES", 2 * 4 * (3 + 3) * 16)  # picture and scores of two rows
    held = Held(tmp_path, batch=8)
    for level in (1, 2, 3):
        held.batcher.submit(held.row(level), Ticket.within(60))
    held.batcher.submit(held.row(4, 64), Ticket.within(60))
    held.go()
    assert held.levels() == [[0], [1, 2], [3], [4]]


def test_by_itself_it_takes_what_is_best_for_the_engine(tmp_path):
    for batch, expected in ((None, [[0], [1, 2], [3], [9], [8]]), (3, [[0], [1, 2, 3], [9, 8]])):
        engine = FakeEngine()
        engine.batch, engine.pixels = 8, 40
        bundle = engine.load("a", write_bundle(tmp_path / "a"))
        engine.gate.clear()
        batcher = Batcher(engine, batch=batch)
        batcher.submit(row_of(bundle, 0), Ticket.within(60))
        wait_for(lambda taking=batcher: taking.counts().queued == 0)
        for level, side in ((1, 4), (2, 4), (3, 4), (9, 16), (8, 16)):
            batcher.submit(row_of(bundle, level, side), Ticket.within(60))
        engine.gate.set()
        batcher.close()
        assert [[int(row.picture[0, 0, 0]) for row in rows] for rows in engine.passes] == expected


def test_a_full_queue_refuses_and_says_when(tmp_path):
    held = Held(tmp_path, queue=2)
    waiting = [held.batcher.submit(held.row(level), Ticket.within(60)) for level in (1, 2)]
    with pytest.raises(Busy, match="the queue is full, with 2 requests") as refused:
        held.batcher.submit(held.row(3), Ticket.within(60))
    assert 1 <= refused.value.retry_after <= 60
    assert held.batcher.counts().queued == 2 and held.batcher.counts().dropped == {"full": 1, "late": 0, "gone": 0}
    held.go()
    assert all(future.result() for future in waiting)


def test_windows_of_an_accepted_request_are_never_refused(tmp_path):
    held = Held(tmp_path, queue=2)
    many = Ticket.within(60)
    with held.batcher.holding(many):
        rows = [held.batcher.submit(held.row(level), many) for level in range(5)]
        held.batcher.submit(held.row(9), Ticket.within(60))
        with pytest.raises(Busy), held.batcher.holding(Ticket.within(60)):
            pass
        rows.append(held.batcher.submit(held.row(5), many))
    held.go()
    assert all(row.result() for row in rows)


def test_retry_after_grows_with_what_waits_and_how_long_rows_take(tmp_path):
    engine = FakeEngine(seconds=0.3)
    bundle = engine.load("a", write_bundle(tmp_path / "a"))
    batcher = Batcher(engine, queue=8, batch=1)
    batcher.submit(row_of(bundle, 0), Ticket.within(60)).result()
    engine.gate.clear()
    with pytest.raises(Busy) as refused:
        for level in range(100):
            batcher.submit(row_of(bundle, level), Ticket.within(60))
            if level == 0:
                wait_for(lambda: not batcher.counts().queued)
    engine.gate.set()
    assert 3 <= refused.value.retry_after <= 5  # eight that wait and one that runs, 0.3 s each and a little: 2.7
    batcher.close(drain=False)


def test_who_is_late_or_gone_is_dropped_before_a_pass(tmp_path):
    held = Held(tmp_path)
    gone, late, fine = Ticket.within(60), Ticket.within(0.05), Ticket.within(60)
    futures = [held.batcher.submit(held.row(level), who) for level, who in ((1, gone), (2, late), (3, fine))]
    gone.gone.set()
    time.sleep(0.06)
    held.go()
    with pytest.raises(Abandoned):
        futures[0].result()
    with pytest.raises(Busy) as refused:
        futures[1].result()
    assert refused.value.retry_after >= 1
    assert held.levels() == [[0], [3]]
    assert held.batcher.counts().dropped == {"full": 0, "late": 1, "gone": 1}


def test_who_is_late_or_gone_is_not_accepted(engine):
    batcher = Batcher(engine)
    gone = Ticket.within(60)
    gone.gone.set()
    with pytest.raises(Abandoned):
        batcher.submit(row_of(engine.bundle, 1), gone)
    with pytest.raises(Busy):
        batcher.submit(row_of(engine.bundle, 1), Ticket.within(0))
    batcher.close()
    assert engine.passes == []


def test_rows_of_the_gone_make_room(tmp_path):
    held = Held(tmp_path, queue=1)
    gone = Ticket.within(60)
    held.batcher.submit(held.row(1), gone)
    gone.gone.set()
    future = held.batcher.submit(held.row(2), Ticket.within(60))
    held.go()
    assert future.result() and held.levels() == [[0], [2]]


def test_a_cancelled_row_runs_no_more(tmp_path):
    held = Held(tmp_path)
    many = Ticket.within(60)
    futures = [held.batcher.submit(held.row(level), many) for level in (1, 2, 3)]
    assert futures[1].cancel()
    held.go()
    assert held.levels()[1:] in ([[1], [3]], [[1, 3]])


def test_one_bad_row_fails_alone(tmp_path, caplog):
    held = Held(tmp_path, batch=8)
    futures = [held.batcher.submit(held.row(level), Ticket.within(60)) for level in (1, 66, 13, 2)]
    held.go()
    assert futures[0].result()["a", "seg"].shape == futures[3].result()["a", "seg"].shape == (3, 4, 4)
    assert isinstance(futures[2].result(), GarnishError)
    with pytest.raises(RuntimeError, match="a fault in a pass"):
        futures[1].result()
    assert "a fault in a pass" in caplog.text
    assert held.batcher.counts().passes == 2  # the second in parts


def test_an_engine_that_gives_too_few_outcomes_hangs_nobody(engine, monkeypatch):
    monkeypatch.setattr(engine, "run", lambda rows: [])
    batcher = Batcher(engine)
    with pytest.raises(RuntimeError, match="1 rows gave 0"):
        batcher.submit(row_of(engine.bundle, 1), Ticket.within(60)).result(10)
    batcher.close()


def test_closing_answers_what_was_accepted_and_refuses_the_rest(tmp_path):
    held = Held(tmp_path, batch=1)
    many = Ticket.within(60)
    begun, submitted = threading.Event(), []

    def windows() -> None:
        with held.batcher.holding(many):
            begun.set()
            for level in (1, 2, 3):  # each when the one before it is there
                submitted.append(held.batcher.submit(held.row(level), many).result(10))

    asking = threading.Thread(target=windows)
    asking.start()
    begun.wait()
    closing = threading.Thread(target=held.batcher.close)
    closing.start()
    wait_for(lambda: held.batcher._closing)
    with pytest.raises(Busy, match="stopping"):
        held.batcher.submit(held.row(9), Ticket.within(60))
    held.engine.gate.set()
    closing.join(10)
    asking.join(10)
    assert len(submitted) == 3 and held.first.result() and not closing.is_alive()


def test_closing_without_draining_lets_go_of_what_waits(tmp_path):
    held = Held(tmp_path)
    future = held.batcher.submit(held.row(1), Ticket.within(60))
    closing = threading.Thread(target=lambda: held.batcher.close(drain=False))
    closing.start()
    with pytest.raises(Busy, match="stopping"):
        future.result(10)
    held.engine.gate.set()
    closing.join(10)
    assert held.first.result() and held.levels() == [[0]]


def test_timings_and_observers(tmp_path):
    engine = FakeEngine(seconds=0.05)
    bundle = engine.load("a", write_bundle(tmp_path / "a"))
    engine.gate.clear()
    batcher = Batcher(engine, batch=2)
    told: list[tuple[object, ...]] = []

    class Observer:
        def passed(self, rows: int, seconds: float) -> None:
            told.append(("passed", rows, seconds >= 0.05))
            raise ValueError("an observer's own fault")  # which ends nothing

        def dropped(self, why: str) -> None:
            told.append(("dropped", why))

    batcher.observers.append(Observer())
    tickets = [Ticket.within(60) for _ in range(3)]
    for ticket in tickets:
        batcher.submit(row_of(bundle, 1), ticket)
    with pytest.raises(Busy):
        batcher.submit(row_of(bundle, 1), Ticket.within(-1))
    time.sleep(0.05)
    engine.gate.set()
    batcher.close()
    counts = batcher.counts()
    assert told.count(("passed", 1, True)) + 2 * told.count(("passed", 2, True)) == 3
    assert (counts.queued, counts.rows) == (0, 3) and counts.seconds >= 0.05 * counts.passes
    for ticket in tickets:
        assert ticket.timings["queue"] >= 0 and ticket.timings["forward"] >= 50
    assert max(ticket.timings["queue"] for ticket in tickets) >= 50


def test_many_threads(tmp_path):
    engine = FakeEngine()
    bundle = engine.load("a", write_bundle(tmp_path / "a"))
    batcher = Batcher(engine, queue=10_000, batch=4)
    found: dict[int, float] = {}

    def ask(first: int) -> None:
        for level in range(first, first + 20):
            future = batcher.submit(row_of(bundle, level, 4 + level % 2), Ticket.within(60))
            found[level] = float(future.result()["a", "seg"].max())

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(70, 230, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    assert found == {level: np.float32(level / 255) for level in range(70, 230)}


def test_who_waits_behind_a_long_pass_is_told_at_the_deadline(tmp_path):
    held = Held(tmp_path)
    late, began = Ticket.within(0.1), time.monotonic()
    with pytest.raises(Busy, match="time passed before its turn"):
        held.batcher.outcome(held.batcher.submit(held.row(1), late), late)
    assert 0.1 <= time.monotonic() - began < 5 and not held.engine.passes, "the pass before it still runs"
    begun = Ticket.within(0.1)
    threading.Timer(0.3, held.engine.gate.set).start()
    assert not isinstance(held.batcher.outcome(held.first, begun), GarnishError), "what has begun is answered"
    held.go()
    assert held.levels() == [[0]]
