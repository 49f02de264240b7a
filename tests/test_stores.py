"""Places: folders and stores with the same verbs, names that cannot leave, whole writes, requests tried again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import threading
from pathlib import Path

import pytest

from garnish.errors import DataError, OptionError
from garnish.stores.facts import name_filter
from garnish.stores.fetched import FetchedFiles, FullCache
from garnish.stores.place import Place, is_address
from garnish.stores.retrying import Patience, is_passing

fsspec = pytest.importorskip("fsspec", reason="the extra [store] is not installed")


@pytest.fixture(params=["memory://bucket/prefix", "folder", "file://"])
def place(request, tmp_path, monkeypatch) -> Place:
    monkeypatch.chdir(tmp_path)
    fsspec.filesystem("memory").store.clear()
    return Place.of(request.param if request.param != "file://" else f"file://{tmp_path}/folder")


def test_what_was_written_is_read_listed_fetched_and_removed(place, tmp_path):
    for name, data in {"a/b.png": b"123", "c.png": b"", "a/x/d.txt": b"45", ".hidden": b"6"}.items():
        place.write(name, data)
    assert place.names() == ["a/b.png", "a/x/d.txt", "c.png"]
    assert place.names("**/*.png") == ["a/b.png", "c.png"] and place.names("*") == ["c.png"]
    assert place.names(".*") == [".hidden"] and place.names("a/[bc].???") == ["a/b.png"] and place.names("q/**") == []
    assert (place / "a").names() == ["b.png", "x/d.txt"] and place.read("a/b.png", most=3) == b"123"
    assert place.read("c.png", most=0) == b"" and place.read_part("a/b.png", 1, 2) == b"2"
    facts = place.facts("a/b.png")
    assert facts == place.listed()["a/b.png"] and facts.size == 3 and facts.version
    assert place.facts("a") is None and place.facts("no") is None
    assert place.fetch("a/b.png", tmp_path / "in" / "copy.png") == facts
    assert (tmp_path / "in" / "copy.png").read_bytes() == b"123"
    place.send(tmp_path / "in" / "copy.png", "e/f.png")
    assert pickle.loads(pickle.dumps(place)).read("e/f.png", most=9) == b"123"
    place.write("a/b.png", b"other")
    assert place.facts("a/b.png") != facts
    place.remove("e/f.png")
    place.remove("e/f.png")
    assert place.names() == ["a/b.png", "a/x/d.txt", "c.png"]
    with pytest.raises(DataError, match="more than 2 files"):
        place.names(most=2)


@pytest.mark.parametrize("name", ["../x", "a/../x", "/x", "a//b", "a/", "", ".", "a\nb", "a\x1b[31m", "x" * 1025])
def test_no_name_leads_out_of_a_place(place, name, tmp_path):
    for verb in (place.facts, place.remove, lambda n: place.read(n, most=9), lambda n: place.write(n, b"1")):
        with pytest.raises(OptionError, match="is no name of a file in it"):
            verb(name)
    with pytest.raises(OptionError):
        place.fetch(name, tmp_path / "y")
    with pytest.raises(OptionError):
        place / name


def test_what_is_not_there_or_too_large_is_told(place):
    place.write("a", b"123")
    for told, verb in {
        "there is no such file": lambda: place.read("b", most=9),
        "has 3 bytes, more than the 2": lambda: place.read("a", most=2),
    }.items():
        with pytest.raises(DataError, match=told) as found:
            verb()
        assert str(place) in str(found.value)
    with pytest.raises(DataError, match=r"no such file|cannot be read"):
        place.send(Path("gone"), "a")
    with pytest.raises(OptionError, match="no range"):
        place.read_part("a", 2, 1)
    assert place.read("a", most=3) == b"123"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("s3://KEY:secret@bucket/x", "holds a password"),
        ("s3://KEY:sec/ret@bucket/x", "holds a password"),
        ("s3://bucket/x?X-Amz-Signature=secret", "has a query"),
        ("simplecache::s3://bucket", "is no address of files"),
        ("s3://bucket/x::zip", "names a place within another"),
        ("zip://a.zip", "names a place within another"),
        ("s4://bucket", "is no protocol that fsspec knows"),
        ("hub://bucket", "is no address of files"),
        ("ray://head:10001", "is no address of files"),
        ("s3://", "names no bucket"),
        ("memory://a/../b", "has a part that is empty"),
        ("memory://a\x1b[31m", "can be no address"),
        ("file://other/x", "names another machine"),
        ("smb://host/x", "a package is missing .*smbprotocol"),
    ],
)
def test_addresses_that_are_refused(text, told):
    with pytest.raises(OptionError, match=told) as found:
        Place.of(text)
    assert "secret" not in str(found.value) and "sec/ret" not in str(found.value) and len(str(found.value)) < 400


def test_what_an_address_is():
    assert is_address("s3://a") and is_address("memory://")
    assert not any(map(is_address, ["hub:a/b", "ray://h", "a/b", "C:/x", Path("s3://a"), None, 3]))
    assert str(Place.of_file("memory://a/b/c.png")[0]) == "memory://a/b"
    assert [str(Place.of_file(text)[0]) for text in ("c.png", "/c.png", "a/c.png")] == [".", "/", "a"]


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(OptionError, match=r"needs fsspec, which is not installed; pip install 'garnish\[store\]'"):
        Place.of("memory://a")
    Place.of("a/b")  # a path needs nothing


def test_patterns_are_those_of_pathlib(tmp_path):
    names = ["a.png", "b/a.png", "b/c/a.png", "b/c/d/a.txt", "b/x-1.png", "b/x-12.png", "b/.h/a.png", ".h.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern in ("*.png", "**/*.png", "b/*", "b/**/*.png", "*/*/*", "b/x-?.png", "b/x-[!0].png", "b/c/a.png", ".h*"):
        found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob(pattern) if path.is_file()}
        if not pattern.startswith("."):  # pathlib shows hidden ones, a shell does not
            found = {name for name in found if not any(part.startswith(".") for part in name.split("/"))}
        fits = name_filter(pattern)
        assert {name for name in names if fits(name)} == found, pattern


# ---- requests that fail -----------------------------------------------------------------------------------------


class Answer(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status} at https://bucket/x?X-Amz-Signature=secret")
        self.status = status


@pytest.fixture
def failing(monkeypatch):
    """Requests of fsspec's memory fail as often as told: ``failing(kind, times)``, or one in ``every``."""
    from fsspec.implementations.memory import MemoryFileSystem

    state = {"error": None, "left": 0, "every": 0, "count": 0, "lock": threading.Lock()}

    def wrap(name, after):
        real = getattr(MemoryFileSystem, name)

        def request(self, *args, **kwargs):
            with state["lock"]:
                state["count"] += 1
                fails = state["left"] > 0 or (state["every"] and state["count"] % state["every"] == 0)
                state["left"] -= 1
            if fails and after:
                real(self, *args, **kwargs)  # done, but the answer is lost
            if fails:
                raise state["error"]
            return real(self, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, name, request)

    for name in ("info", "cat_file", "ls"):
        wrap(name, after=False)
    for name in ("pipe_file", "rm_file"):
        wrap(name, after=True)
    MemoryFileSystem.store.clear()

    def told(error: Exception, left: int = 0, every: int = 0):
        state.update(error=error, left=left, every=every, count=0)
        return state

    return told


def test_a_store_that_fails_one_request_in_twenty(failing, caplog, tmp_path):
    state = failing(Answer(503), every=20)
    place = Place.of("memory://bucket")
    with caplog.at_level(logging.INFO, "garnish"):
        for number in range(100):
            place.write(f"{number:03}", bytes([number]) * 10)
        for number in range(100):
            place.fetch(f"{number:03}", tmp_path / "x")
            assert (tmp_path / "x").read_bytes() == bytes([number]) * 10
        assert place.names() == [f"{number:03}" for number in range(100)]
        for number in range(50):
            place.remove(f"{number:03}")
    assert place.names() == [f"{number:03}" for number in range(50, 100)]
    assert place.retries == state["count"] // 20 >= 15
    told = [record.getMessage() for record in caplog.records if "tried again" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith("memory://bucket: writing ") and "secret" not in told[0]
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        *((error, 1) for error in (Answer(403), Answer(404), Answer(501), PermissionError("no"), ValueError("odd"))),
        *((error, 3) for error in (Answer(500), Answer(429), ConnectionResetError(), TimeoutError(), OSError(5, "io"))),
    ],
)
def test_only_what_may_pass_is_tried_again_and_not_for_ever(failing, error, asked):
    state = failing(error, left=100)
    place = Place.of("memory://bucket", patience=Patience(3, 20))
    with pytest.raises(DataError, match=r"^memory://bucket: writing x/y\.png failed \(") as found:
        place.write("x/y.png", b"1")
    assert state["count"] == asked and place.retries == asked - 1
    assert ("tried 3 times" in str(found.value)) == (asked == 3) and "secret" not in str(found.value)


def test_a_bound_in_seconds_holds_too(failing):
    state = failing(TimeoutError("slow"), left=10**6)
    with pytest.raises(DataError, match="tried"):
        Place.of("memory://bucket", patience=Patience(10**6, 0.5)).write("x", b"1")
    assert 1 <= state["count"] < 100


def test_errors_of_clients_are_understood():
    botocore = pytest.importorskip("botocore.exceptions", reason="s3fs is not installed")
    for status, code, passes in ((500, "InternalError", True), (503, "SlowDown", True), (404, "NoSuchKey", False)):
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        assert is_passing(botocore.ClientError(answer, "GetObject")) is passes
    assert is_passing(botocore.EndpointConnectionError(endpoint_url="http://x"))
    assert not is_passing(botocore.NoCredentialsError()) and not is_passing(ValueError("x"))


def test_half_a_file_is_never_left(failing, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    failing(Answer(500))
    place = Place.of("memory://bucket", patience=Patience(2, 5))
    place.write("x", b"0123456789")
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *a, **k: b"01234")
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(DataError, match="5 bytes came of 10, tried 2 times"):
        place.fetch("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"old" and list(tmp_path.iterdir()) == [tmp_path / "x"]


# ---- fetched files ----------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Place:
    fsspec.filesystem("memory").store.clear()
    place = Place.of("memory://bucket")
    for number in range(10):
        place.write(f"in/{number}.bin", bytes([number]) * 1000)
    return place


def held(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / "fetched").rglob("*") if file.is_file())


def test_the_least_recently_used_files_go_first(store, tmp_path):
    cache = FetchedFiles(tmp_path, 4800)
    for number in [*range(10), 9, 0]:
        with cache.file(store, f"in/{number}.bin") as file:
            assert file.name == f"{number}.bin" and file.read_bytes() == bytes([number]) * 1000
        assert held(tmp_path) <= 4800
    there = {file.name for file in (tmp_path / "fetched").rglob("*.bin")}
    assert {"9.bin", "0.bin"} <= there and "1.bin" not in there


def test_files_in_use_stay(store, tmp_path):
    cache, other = FetchedFiles(tmp_path, 3400), FetchedFiles(tmp_path, 3400)
    with cache.file(store, "in/0.bin") as first:
        for number in range(1, 10):
            with other.file(store, f"in/{number}.bin"):
                assert first.read_bytes() == bytes(1000)
        told = r"bytes are in use, and 1,000 more than .* raise GARNISH_CACHE_GB"
        with cache.file(store, "in/1.bin"), cache.file(store, "in/2.bin"), pytest.raises(FullCache, match=told):
            cache.file(store, "in/3.bin").__enter__()
    with pytest.raises(FullCache, match="a file of 1,000 bytes is larger than"):
        FetchedFiles(tmp_path / "small", 999).file(store, "in/3.bin").__enter__()


def test_damaged_half_and_replaced_files_are_fetched_anew(store, tmp_path):
    def read(cache: FetchedFiles) -> bytes:
        with cache.file(store, "in/7.bin") as found:
            return found.read_bytes()

    cache = FetchedFiles(tmp_path, 10**6)
    assert read(cache) == b"\7" * 1000
    (file,) = (tmp_path / "fetched").rglob("*.bin")
    file.write_bytes(b"half")
    assert read(cache) == b"\7" * 1000
    times = file.stat()
    file.write_bytes(b"x" * 1000)  # a disk that gives other bytes: size and time are as they were
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read(FetchedFiles(tmp_path, 10**6)) == b"\7" * 1000
    file.with_name("note.json").write_bytes(b"{")
    assert read(cache) == b"\7" * 1000
    file.with_name("note.json").unlink()  # as a kill between the two leaves it
    assert read(cache) == b"\7" * 1000
    listed = store.facts("in/7.bin")
    store.write("in/7.bin", b"new")
    assert read(cache) == b"new"
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="was replaced since it was listed"):
        FetchedFiles(tmp_path / "other", 10**6).file(store, "in/7.bin", listed).__enter__()
    assert held(tmp_path / "other") == 0


def test_files_of_this_machine_are_not_copied(tmp_path):
    (tmp_path / "x").write_bytes(b"1")
    cache = FetchedFiles(tmp_path / "cache", 10)
    with cache.file(Place.of(tmp_path), "x") as file:
        assert file == tmp_path / "x"
    with pytest.raises(DataError, match="there is no such file"):
        cache.file(Place.of(tmp_path), "y").__enter__()


@pytest.mark.parametrize("text", ["0", "-1", "many", "nan"])
def test_a_bound_that_is_none_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.setenv("GARNISH_CACHE_GB", text)
    with pytest.raises(OptionError, match="GARNISH_CACHE_GB"):
        FetchedFiles(tmp_path)


def _use(folder: str, source: str, seed: int, wrong: list[str]) -> None:
    import random

    place, cache, rng = Place.of(source), FetchedFiles(folder, 6000), random.Random(seed)
    for _ in range(60):
        number = rng.randrange(12)

        def make(file: Path, number: int = number) -> None:
            place.fetch(f"{number}.bin", file)

        with cache.made((number,), f"{number}.bin", make) as file:
            if file.read_bytes() != bytes([number]) * 1000:
                wrong.append(f"{number}")


@pytest.mark.slow
def test_several_processes_share_a_cache(tmp_path):
    source = Place.of(tmp_path / "in")
    for number in range(12):
        source.write(f"{number}.bin", bytes([number]) * 1000)
    with multiprocessing.get_context("spawn").Manager() as manager:
        wrong = manager.list()
        spawn = multiprocessing.get_context("spawn")
        users = [spawn.Process(target=_use, args=(str(tmp_path / "c"), str(source), k, wrong)) for k in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert [user.exitcode for user in users] == [0] * 4 and not list(wrong)
    assert held(tmp_path / "c") <= 6000 + 4 * 1200  # what is in use is not removed
