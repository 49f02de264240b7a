"""The service over a fake engine: what a request may ask, what is refused, what is answered."""

from __future__ import annotations

import io
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from garnish.errors import DataError, GarnishError, OptionError
from garnish.serving.asked import Answer, Asking, Ticket
from garnish.serving.batcher import Batcher
from garnish.serving.engine import Loaded
from garnish.serving.refusals import Abandoned, Busy, TooLarge, UnknownBundle
from garnish.serving.service import Service
from serving_fakes import NAMES, FakeEngine, wait_for, write_bundle


class Store:
    """Bundles that are all in memory."""

    def __init__(self, loaded: dict[str, Loaded]) -> None:
        self.loaded, self.used = loaded, 0

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.loaded))

    @contextmanager
    def using(self, names: Sequence[str]) -> Iterator[tuple[Loaded, ...]]:
        if lacking := [name for name in names if name not in self.loaded]:
            raise UnknownBundle(f"no bundle {lacking[0]!r}")
        self.used += 1
        try:
            yield tuple(self.loaded[name] for name in names)
        finally:
            self.used -= 1


class Served:
    """A service of some bundles of the fake engine."""

    def __init__(self, tmp_path: Path, names: Sequence[str] = ("a", "b"), queue: int = 64, **options: object) -> None:
        self.engine = FakeEngine()
        shifts = {name: number for number, name in enumerate(names)}
        self.store = Store({n: self.engine.load(n, write_bundle(tmp_path / n, shift)) for n, shift in shifts.items()})
        self.batcher = Batcher(self.engine, queue=queue)
        self.service = Service(self.engine, self.store, self.batcher, **options)  # type: ignore[arg-type]

    def predict(self, data: bytes, *bundles: str, seconds: float = 60, **asking: object) -> Answer:
        return self.service.predict(data, Asking(bundles=bundles, **asking), Ticket.within(seconds))  # type: ignore[arg-type]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.batcher.close()
    assert made.store.used == 0


def png(pixels: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def picture(height: int = 11, width: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_answers_by_bundle_then_task(served):
    pixels = picture()
    answer = served.predict(png(pixels), "b", "a")
    assert list(answer.predictions) == ["b", "a"]
    for name, shift in (("b", 1), ("a", 0)):
        maps = answer.predictions[name]
        assert list(maps.maps) == ["seg", "depth"] and (maps.picture == pixels).all()
        expected = np.roll(pixels.transpose(2, 0, 1).astype(np.float32), shift, 0).argmax(0)
        assert maps["seg"].dtype == np.uint8 and (maps["seg"] == expected).all()
        assert maps["depth"].shape == (11, 7) and maps.tasks["seg"].names == NAMES
    assert answer.kinds == {name: {"seg": "Semantic", "depth": "Depth"} for name in ("b", "a")}
    assert answer.confidence == {} and len(served.engine.passes) == 1


@pytest.mark.parametrize(
    ("bundles", "tasks", "expected"),
    [
        (("a",), (), {"a": ["seg", "depth"]}),
        (("a", "b"), ("seg",), {"a": ["seg"], "b": ["seg"]}),
        (("a", "b"), ("depth", "b/seg"), {"a": ["depth"], "b": ["seg", "depth"]}),
        ((), ("b/seg",), {"b": ["seg"]}),
        ((), ("b/seg", "a/depth"), {"b": ["seg"], "a": ["depth"]}),
        (("a", "a"), ("seg", "seg"), {"a": ["seg"]}),
        (("a", "b"), ("a/seg",), {"a": ["seg"]}),
    ],
)
def test_what_may_be_asked(served, bundles, tasks, expected):
    answer = served.predict(png(picture()), *bundles, tasks=tasks)
    assert {name: list(found.maps) for name, found in answer.predictions.items()} == expected


@pytest.mark.parametrize(
    ("bundles", "tasks", "told"),
    [
        ((), (), "bundle: name one or more of a, b, as bundle=a"),
        ((), ("seg",), "bundle: name one or more of a, b"),
        (("a",), ("sge",), "tasks: unknown task 'sge'; did you mean 'seg'?"),
        (("a",), ("a/sge",), "tasks: unknown task 'a/sge'; did you mean 'seg'?"),
        (("a",), ("b/seg",), "tasks: 'b/seg' is of a bundle that is not asked"),
        (("a",), ("c/seg",), "; name it as bundle too, or another; available: a"),
        (
            ("a", "b"),
            ("sge", "seg"),
            "tasks: no bundle of those asked has a task 'sge'; did you mean 'seg'? available: a/seg, a/depth, b/seg",
        ),
        (("a", "b"), ("a/sge",), "tasks: unknown task 'a/sge'; did you mean 'seg'? available: depth, seg"),
        ([f"n{k}" for k in range(65)], (), "bundle: 65 are named, and a request may ask 64"),
    ],
)
def test_what_is_refused(served, bundles, tasks, told):
    with pytest.raises(OptionError) as refused:
        served.predict(png(picture()), *bundles, tasks=tasks)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_the_only_bundle_need_not_be_named(tmp_path):
    served = Served(tmp_path, ["only"])
    assert list(served.predict(png(picture())).predictions) == ["only"]
    with pytest.raises(UnknownBundle):
        served.predict(png(picture()), "other")


def test_confidence_is_the_probability_of_the_class_chosen(served):
    pixels = picture(40, 33)
    answer = served.predict(png(pixels), "a", "b", confidence=True)
    plain = served.predict(png(pixels), "a", "b")
    assert set(answer.confidence) == {("a", "seg"), ("b", "seg")}
    scores = pixels.transpose(2, 0, 1) / 255.0
    shares = np.exp(scores) / np.exp(scores).sum(0)
    for name in "ab":
        assert (answer.predictions[name]["seg"] == plain.predictions[name]["seg"]).all()
        found = answer.confidence[name, "seg"]
        assert found.shape == (40, 33) and found.dtype == np.float32
        assert np.allclose(found, shares.max(0), atol=1e-6)


def test_large_pictures_are_windows_that_others_share_passes_with(tmp_path):
    served = Served(tmp_path, tile=32)
    pixels = picture(75, 90)
    whole = Served(tmp_path, tile=None).predict(png(pixels), "a", confidence=True)
    tiled = served.predict(png(pixels), "a", confidence=True)
    # a fake's windows agree, so blending them is the whole picture's map
    assert (tiled.predictions["a"]["seg"] == whole.predictions["a"]["seg"]).mean() > 0.999
    assert np.allclose(tiled.confidence["a", "seg"], whole.confidence["a", "seg"], atol=1e-6)
    assert np.allclose(tiled.predictions["a"]["depth"], whole.predictions["a"]["depth"], rtol=1e-5)
    assert len(served.engine.passes) > 4


def test_windows_of_several_requests_are_in_passes_together(tmp_path):
    served = Served(tmp_path, tile=32)
    served.batcher.batch = 8
    served.engine.seconds = 0.01
    found = []
    pixels = [picture(64, 64, seed) for seed in range(3)]
    asking = [
        threading.Thread(target=lambda one=one: found.append(served.predict(png(one), "a")), args=()) for one in pixels
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(found) == 3
    shared = [rows for rows in served.engine.passes if len({row.picture.tobytes() for row in rows}) > 1]
    assert shared and max(map(len, served.engine.passes)) <= 8


def test_a_window_that_fails_ends_its_request_alone(tmp_path):
    served = Served(tmp_path, tile=32)
    pixels = picture(64, 96)
    pixels[:, :48] = 13
    with pytest.raises(GarnishError, match="not finite"):
        served.predict(png(pixels), "a")
    served.batcher.close()
    assert served.batcher.counts().queued == 0
    assert sum(map(len, served.engine.passes)) < 12  # the rest was taken out of the queue


def test_faults_of_a_pass_are_raised(served):
    with pytest.raises(RuntimeError, match="a fault in a pass"):
        served.predict(png(np.full((8, 8, 3), 66, np.uint8)), "a")
    assert served.predict(png(picture()), "a")


def test_a_full_house_refuses_before_it_decodes(tmp_path):
    served = Served(tmp_path, queue=1)
    served.engine.gate.clear()
    threads = [threading.Thread(target=lambda: served.predict(png(picture()), "a"), daemon=True) for _ in range(2)]
    try:
        # the second takes the one place of the queue, which it has once the first is in a pass and not before
        for thread, is_there in zip(
            threads, (lambda: served.batcher._running, lambda: served.batcher.counts().queued), strict=True
        ):
            thread.start()
            wait_for(is_there)
        with pytest.raises(Busy):
            served.predict(b"not a picture", "a")
    finally:
        served.engine.gate.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_who_is_late_or_gone_is_not_begun(served):
    with pytest.raises(Busy):
        served.predict(b"not a picture", "a", seconds=0)
    ticket = Ticket.within(60)
    ticket.gone.set()
    with pytest.raises(Abandoned):
        served.service.predict(b"not a picture", Asking(("a",)), ticket)
    assert served.engine.passes == []


def test_timings(served):
    ticket = Ticket.within(60)
    served.service.predict(png(picture()), Asking(("a",)), ticket)
    assert set(ticket.timings) == {"decode", "queue", "forward"} and min(ticket.timings.values()) >= 0


@pytest.mark.parametrize("size", [(50, 30), (30, 50), (70_000, 1)])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, size, monkeypatch):
    served = Served(tmp_path, megapixels=0.001)
    monkeypatch.setattr("garnish.serving.given_bytes.read_picture", lambda given: pytest.fail("was decoded"))
    with pytest.raises(TooLarge) as refused:
        served.predict(png(np.zeros((*size, 3), np.uint8)), "a")
    assert f"{size[1]}x{size[0]}" in str(refused.value)


def test_a_header_that_promises_more_than_is_read_is_too_large(served):
    data = bytearray(png(picture()))
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(TooLarge, match="the picture: is more than 179 megapixels by its header"):
        served.predict(bytes(data), "a")


def test_more_pixels_than_so_few_bytes_hold_are_too_large(served):
    data = bytearray(png(picture()))
    data[16:24] = (9000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(TooLarge, match=r"81 megapixels in [0-9,]+ bytes"):
        served.predict(bytes(data), "a")


def test_many_maps_of_a_large_picture_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("garnish.serving.service._MOST_OUTPUTS", 10_000)
    served = Served(tmp_path)
    assert served.predict(png(picture(20, 20)), "a")  # 4 channels · 400 pixels · 4 bytes
    with pytest.raises(TooLarge, match="4 maps of 40x20 pixels"):
        served.predict(png(picture(20, 40)), "a", "b")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"GIF89a", png(picture())[:60], b"\x93NUMPY\x01\0", b"II*\0\0\0\0\0", b"PK\3\4"]
)
def test_what_is_no_picture_is_refused_in_one_line(served, data):
    with pytest.raises(DataError) as refused:
        served.predict(data, "a")
    assert str(refused.value).startswith("the picture: ") and "\n" not in str(refused.value)
    assert "/proc" not in str(refused.value) and "/tmp" not in str(refused.value)
