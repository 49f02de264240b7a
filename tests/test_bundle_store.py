"""The store of bundles: whole for who uses them, within a bound of memory, on disk whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import garnish as gn
import tiny
from garnish.errors import BundleError, GarnishError
from garnish.model.model import Model
from garnish.serving.bundle_store import BundleStore
from garnish.serving.engine import Loaded
from garnish.serving.known_bundles import KnownBundles
from garnish.serving.refusals import Busy, TooLarge, UnknownBundle
from garnish.serving.torch_engine import TorchEngine
from serving_fakes import FakeEngine, write_bundle

#: bytes that a bundle of the fake engine takes
EACH = 1000


def store(tmp_path: Path, count: int = 3, memory: int = 10 * EACH, **given: Any) -> tuple[BundleStore, FakeEngine]:
    engine = FakeEngine()
    made = BundleStore(engine, memory=memory, **given)
    for number in range(count):
        made.add(f"b{number}", write_bundle(tmp_path / f"b{number}", shift=number, size=EACH))
    return made, engine


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("bundle.json", "weights.safetensors")}


def upload(tmp_path: Path, shift: int, size: int = EACH) -> dict[str, bytes]:
    return files_of(write_bundle(tmp_path / f"upload-{shift}-{size}", shift, size))


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def says(text: str, error: type[GarnishError], call: Any) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


def use(made: BundleStore, *names: str) -> list[int]:
    with made.using(names) as found:
        return [loaded.handle for loaded in found]


# ---- memory -----------------------------------------------------------------------------------------------------


def test_bundles_are_read_when_asked_for_and_stay(tmp_path):
    made, engine = store(tmp_path)
    assert made.names() == ("b0", "b1", "b2") and engine.loads == []
    assert use(made, "b2", "b0") == [2, 0] and use(made, "b2") == [2] and engine.loads == ["b2", "b0"]
    counts = made.counts()
    assert (counts.known, counts.resident, counts.nbytes, counts.hits, counts.misses) == (3, 2, 2 * EACH, 1, 2)
    assert counts.dropped == 0 and counts.load_seconds_total > 0


def test_the_longest_unused_is_dropped_and_read_again(tmp_path):
    made, engine = store(tmp_path, 4, memory=2 * EACH)
    use(made, "b0"), use(made, "b1"), use(made, "b0"), use(made, "b2")  # b1 was unused for longer
    assert {loaded.name for loaded in engine.resident} == {"b0", "b2"}
    assert use(made, "b1") == [1] and {loaded.name for loaded in engine.resident} == {"b2", "b1"}
    assert made.counts().dropped == 2 and made.counts().nbytes == 2 * EACH


def test_what_is_used_is_never_dropped(tmp_path):
    made, engine = store(tmp_path, 3, memory=2 * EACH)
    with made.using(["b0"]):
        use(made, "b1"), use(made, "b2"), use(made, "b1")
        assert "b0" in {loaded.name for loaded in engine.resident}
        with made.using(["b1"]):
            says("no room in memory beside those that requests under way use", Busy, lambda: use(made, "b2"))
            assert use(made, "b0", "b1") == [0, 1]
        assert use(made, "b2") == [2]
    says("no room in memory", Busy, lambda: use(made, "b0", "b1", "b2"))
    assert len(engine.resident) == made.counts().resident <= 2
    assert use(made, "b0", "b0", "b1") == [0, 0, 1]


def test_a_bundle_that_is_larger_than_the_bound_is_refused(tmp_path):
    made, engine = store(tmp_path, 1, memory=EACH - 1)
    says("start the server with a larger --memory", BundleError, lambda: use(made, "b0"))
    assert not engine.resident and made.counts().nbytes == 0


def test_a_bundle_that_takes_more_than_its_file_is_bounded_by_what_it_takes(tmp_path):
    made, engine = store(tmp_path, 2, memory=2 * EACH)
    folder = tmp_path / "wide"
    write_bundle(folder, 5, 10)
    (folder / "bundle.json").write_text(json.dumps({"shift": 5, "size": EACH + 1}))  # a file of 10 bytes
    made.add("wide", folder)
    with made.using(["b0"]):
        says("no room in memory", Busy, lambda: use(made, "wide"))
    assert {loaded.name for loaded in engine.resident} == {"b0"}
    assert use(made, "wide") == [5] and {loaded.name for loaded in engine.resident} == {"wide"}


def test_loads_of_different_bundles_go_side_by_side_and_of_one_once(tmp_path):
    made, engine = store(tmp_path, 2)
    both = threading.Barrier(2, timeout=10)
    load, calls = engine.load, []

    def slow(name: str, folder: Path) -> Loaded:
        calls.append(name)
        both.wait()  # only passes if the other bundle is being read meanwhile
        return load(name, folder)

    engine.load = slow  # type: ignore[method-assign]
    threads = [threading.Thread(target=use, args=(made, f"b{number % 2}")) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(calls) == ["b0", "b1"] and made.counts().misses >= 2
    assert made.counts().hits + made.counts().misses == 6


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", ".a", "a" * 101, "a\n", "ä", "a b", "a\0"])
def test_names_that_no_bundle_can_have(tmp_path, name):
    made, _ = store(tmp_path, 0, uploads=tmp_path / "uploads", root=tmp_path)
    write_bundle(tmp_path / "x")
    says("bundle name", BundleError, lambda: made.add(name, tmp_path / "x"))
    says("bundle name", BundleError, lambda: made.put(name, upload(tmp_path, 1)))
    says("bundle name", BundleError, lambda: made.put_from(name, "x"))
    says("no bundle", UnknownBundle, lambda: made.put_from("y", name))
    says("no bundle", UnknownBundle, lambda: use(made, name))


def test_unknown_and_taken_names(tmp_path):
    made, _ = store(tmp_path, 1)
    for call in (lambda: use(made, "b1"), lambda: made.about("b1"), lambda: made.remove("b1")):
        says("no bundle 'b1'; did you mean 'b0'", UnknownBundle, call)
    says("is taken by", BundleError, lambda: made.add("b0", write_bundle(tmp_path / "other")))
    says("no such folder", BundleError, lambda: made.add("c", tmp_path / "none"))
    says("--uploads", BundleError, lambda: made.put("c", upload(tmp_path, 1)))
    says("--bundles", BundleError, lambda: made.put_from("c", "x"))


def test_about(tmp_path):
    made, _ = store(tmp_path, 1)
    told = made.about("b0")
    assert told["name"] == "b0" and told["resident"] and told["bytes"] == EACH and told["sha256"] == f"{0:064x}"
    assert told["tasks"]["seg"]["classes"] == ["road", "sky", "tree"] and len(told["tasks"]["seg"]["palette"]) == 3
    assert told["tasks"]["depth"] == {
        "task": "Depth",
        "decoding": {"name": "SoftplusDepth", "options": {"max_metres": 10.0, "min_metres": 1e-3}},
    }
    json.dumps(told, allow_nan=False)


# ---- coming and going -------------------------------------------------------------------------------------------


def test_an_upload_is_whole_on_disk_and_after_a_restart(tmp_path):
    uploads = tmp_path / "uploads"
    made, engine = store(tmp_path, 1, uploads=uploads)
    assert made.put("new", upload(tmp_path, 2))["sha256"] == f"{2:064x}"
    assert made.names() == ("b0", "new") and use(made, "new") == [2] and engine.loads == ["new"]
    assert names_in(uploads) == ["new"]
    assert names_in(uploads / "new") == ["SHA256SUMS", "bundle.json", "weights.safetensors"]
    again, _ = store(tmp_path, 0, uploads=uploads)
    assert again.names() == ("new",) and use(again, "new") == [2]
    again.remove("new")
    assert names_in(uploads) == [] and again.names() == () and again.counts().nbytes == 0


def test_an_upload_replaces_a_bundle_that_stays_whole_for_its_users(tmp_path):
    made, engine = store(tmp_path, 1, uploads=tmp_path / "uploads")
    with made.using(["b0"]) as (old,):
        made.put("b0", upload(tmp_path, 7))
        assert use(made, "b0") == [7] and old in engine.resident and made.counts().nbytes == 2 * EACH
        made.put("b0", upload(tmp_path, 8))
        made.remove("b0")
        assert old in engine.resident and made.names() == ("b0",)  # what the start named is served again
    assert not engine.resident and made.counts().nbytes == 0
    assert use(made, "b0") == [0]
    made.remove("b0")
    assert made.names() == () and not engine.resident
    assert (tmp_path / "b0").is_dir()  # files that were given are nobody's to delete


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda files: files.pop("weights.safetensors"), BundleError, "no weights.safetensors"),
        (lambda files: files.update({"../evil": b""}), BundleError, "'../evil'"),
        (lambda files: files.update({"bundle.json": b"{"}), BundleError, "new/bundle.json: is damaged"),
        (lambda files: files.update({"weights.safetensors": bytes(5000)}), TooLarge, "5,"),
    ],
)
def test_a_bad_upload_changes_nothing(tmp_path, change, error, text):
    uploads = tmp_path / "uploads"
    made, engine = store(tmp_path, 0, uploads=uploads, max_upload=3000)
    load = engine.load

    def told(name: str, folder: Path) -> Loaded:
        try:
            return load(name, folder)
        except BundleError:
            raise BundleError(f"{folder}/bundle.json: is damaged") from None

    engine.load = told  # type: ignore[method-assign]
    made.put("new", upload(tmp_path, 1))
    files = upload(tmp_path, 2)
    change(files)
    says(text, error, lambda: made.put("new", files))
    assert use(made, "new") == [1] and names_in(uploads) == ["new"] and len(engine.resident) == 1
    assert files_of(uploads / "new") == upload(tmp_path, 1) and made.counts().nbytes == EACH


@pytest.mark.parametrize("at", range(1, 9))
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, at):
    uploads = tmp_path / "uploads"
    made, engine = store(tmp_path, 0, uploads=uploads)
    made.put("new", upload(tmp_path, 1))
    files, calls = upload(tmp_path, 2), []

    def full(method: Any) -> Any:
        def call(self: Path, *args: Any, **kwargs: Any) -> Any:
            writes = method is mkdir or bool(set("wx") & set(args[0] if args else "r"))
            if str(self).startswith(str(uploads)) and writes:
                calls.append(self)
                if len(calls) == at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return method(self, *args, **kwargs)

        return call

    mkdir, opening = Path.mkdir, Path.open
    monkeypatch.setattr(Path, "mkdir", full(mkdir))
    monkeypatch.setattr(Path, "open", full(opening))
    with pytest.raises(BundleError) as caught:
        made.put("new", files)
    monkeypatch.undo()
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
    assert str(uploads) not in str(caught.value) and "No space" in str(caught.value)
    assert use(made, "new") == [1] and names_in(uploads) == ["new"] and len(engine.resident) == 1
    assert made.counts().nbytes == EACH and files_of(uploads / "new") == upload(tmp_path, 1)
    made.put("new", files)
    assert use(made, "new") == [2]


def test_what_a_kill_left_goes_at_the_next_start(tmp_path):
    uploads = tmp_path / "uploads"
    made, _ = store(tmp_path, 0, uploads=uploads)
    made.put("new", upload(tmp_path, 1))
    for name in (".incoming-3", ".new.writing", ".gone.removed", ".new.replaced"):
        write_bundle(uploads / name)
    write_bundle(uploads / ".back.replaced", 9)
    (uploads / "notes.txt").write_text("somebody's own")
    again, _ = store(tmp_path, 0, uploads=uploads)
    assert again.names() == ("back", "new") and use(again, "back", "new") == [9, 1]
    assert names_in(uploads) == ["back", "new", "notes.txt"]


def test_a_server_that_is_killed_in_an_upload_starts_with_whole_bundles(tmp_path):
    """Killed at any moment of replacing one bundle by another over and over, the next start has one of the two."""
    uploads = tmp_path / "uploads"
    code = textwrap.dedent(
        f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from serving_fakes import FakeEngine, write_bundle
        from garnish.serving.bundle_store import BundleStore
        made = BundleStore(FakeEngine(), memory=10**6, uploads=Path({str(uploads)!r}))
        files = []
        for shift in (1, 2):
            folder = write_bundle(Path({str(tmp_path)!r}) / f"s{{shift}}", shift, 1000 * shift)
            files.append({{n: (folder / n).read_bytes() for n in ("bundle.json", "weights.safetensors")}})
        print("ready", flush=True)
        while True:
            for each in files:
                made.put("new", each)
        """
    )
    generator = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(0.1 + generator.random() / 10)
        process.kill()
        process.wait()
        process.stdout.close()
        made, _ = store(tmp_path, 0, uploads=uploads)
        if made.names():  # nothing was whole before the first rename
            assert use(made, "new")[0] in (1, 2)
        assert all(not name.startswith(".") for name in names_in(uploads))


# ---- folders of bundles -----------------------------------------------------------------------------------------


def test_folders_below_root_are_known_also_later_ones(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_bundle(root / "one", 1)
    write_bundle(outside / "secret", 3)
    (root / "empty").mkdir()
    (root / "link").symlink_to(outside / "secret")
    (root / ".hidden").mkdir()
    made, _ = store(tmp_path, 0, root=root)
    assert made.names() == ("one",) and use(made, "one") == [1]
    write_bundle(root / "two", 2)
    assert use(made, "two") == [2] and made.names() == ("one", "two")
    for name in ("link", "../outside/secret", "empty"):
        says("no bundle", UnknownBundle, lambda name=name: use(made, name))
        says("no bundle", UnknownBundle, lambda name=name: made.put_from("x", name))
    write_bundle(root / "three", 3)
    (root / "three" / "weights.safetensors").unlink()
    (root / "three" / "weights.safetensors").symlink_to(outside / "secret" / "weights.safetensors")
    says("is a link out of", BundleError, lambda: use(made, "three"))
    made.remove("one")
    assert made.names() == ("three", "two") and (root / "one").is_dir()
    says("no bundle", UnknownBundle, lambda: use(made, "one"))
    assert made.put_from("one", "one")["name"] == "one" and made.put_from("other", "two")["name"] == "other"
    assert use(made, "one", "other", "two") == [1, 2, 2]


@pytest.mark.parametrize("how", ["description", "gone"])
def test_a_folder_that_changed_is_told_and_can_be_put_again(tmp_path, how):
    root = tmp_path / "root"
    for number in range(2):
        write_bundle(root / f"r{number}", number)
    made, engine = store(tmp_path, 0, memory=EACH, root=root)
    use(made, "r0"), use(made, "r1")  # r0 is dropped
    if how == "gone":
        shutil.rmtree(root / "r0")
    else:
        write_bundle(root / "r0", 5)
    says("its folder has changed since it became known", BundleError, lambda: use(made, "r0"))
    assert {loaded.name for loaded in engine.resident} <= {"r1"}
    write_bundle(root / "r0", 5)
    made.put_from("r0", "r0")
    assert use(made, "r0") == [5]


def test_an_upload_came_later_than_what_the_server_is_started_with(tmp_path):
    uploads = tmp_path / "uploads"
    made, _ = store(tmp_path, 1, uploads=uploads)
    made.put("b0", upload(tmp_path, 9))
    again, _ = store(tmp_path, 1, uploads=uploads)
    assert use(again, "b0") == [9]


def test_a_bundle_that_an_upload_covered_is_served_again(tmp_path):
    """Uploads, what the start names, and the folder of bundles: each goes by itself, and what it covered comes back."""
    uploads, root = tmp_path / "uploads", tmp_path / "root"
    write_bundle(root / "b0", 5), write_bundle(root / "one", 6), write_bundle(root / "other", 7)
    store(tmp_path, 0, uploads=uploads)[0].put("b0", upload(tmp_path, 9))
    made, engine = store(tmp_path, 1, uploads=uploads, root=root)
    for expected in (9, 0, 5):
        assert use(made, "b0") == [expected] and made.names() == ("b0", "one", "other")
        made.remove("b0")
    says("no bundle 'b0'", UnknownBundle, lambda: use(made, "b0"))
    assert made.names() == ("one", "other") and (root / "b0").is_dir() and names_in(uploads) == []
    made.put("one", upload(tmp_path, 9)), made.put_from("other", "one")
    assert use(made, "one", "other") == [9, 6]
    made.remove("one"), made.remove("other")
    assert use(made, "one", "other") == [6, 7] and len(engine.resident) == 2
    made.remove("one")
    made.put("one", upload(tmp_path, 9))
    made.remove("one")  # it was removed from under it
    assert made.names() == ("other",)
    made.put_from("one", "one")
    assert use(made, "one") == [6]


def test_a_bundle_of_another_trunk_is_told_once_and_not_listed(tmp_path, caplog):
    root, uploads = tmp_path / "root", tmp_path / "uploads"
    for folder in (root / "foreign", uploads / "sent", root / "good"):
        write_bundle(folder)
    for folder in (root / "foreign", uploads / "sent"):
        (folder / "bundle.json").write_text('{"shift": 0, "size": 9, "of": "foreign"}')
    made, _ = store(tmp_path, 0, root=root, uploads=uploads)
    assert made.names() == made.names() == ("good",) and made.counts().known == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"bundle {name} is not served: {folder / name}: belongs to backbone other, not to fake"
        for name, folder in (("sent", uploads), ("foreign", root))
    ]
    says("available: good", UnknownBundle, lambda: use(made, "goods"))
    made.remove("sent")
    assert names_in(uploads) == []


def test_what_the_start_names_and_is_not_served_is_told(tmp_path, caplog):
    uploads, root = tmp_path / "uploads", tmp_path / "root"
    store(tmp_path, 0, uploads=uploads)[0].put("b0", upload(tmp_path, 9))
    named, other = write_bundle(tmp_path / "named", 1), write_bundle(root / "b1", 2)
    made, _ = store(tmp_path, 0, uploads=uploads, root=root)
    made.add("b0", named)
    assert f"bundle b0: the upload of this name is served, not {named}" in caplog.text
    made.add("b1", named)
    assert f"bundle b1: {named} is served, not {other}" in caplog.text and use(made, "b1") == [1]
    caplog.clear()
    store(tmp_path, 0, root=root)[0].add("b1", other)
    assert not caplog.text


def test_a_bundle_that_is_removed_while_somebody_looks_for_it_stays_removed(tmp_path, monkeypatch):
    root = tmp_path / "root"
    write_bundle(root / "one", 1)
    made, _ = store(tmp_path, 0, root=root)
    known, looks = made._known, KnownBundles.below_root

    def late(self: KnownBundles, name: str) -> Path | None:
        found = looks(self, name)
        monkeypatch.setattr(KnownBundles, "below_root", looks)
        made.remove("one")  # by another thread, meanwhile
        return found

    monkeypatch.setattr(KnownBundles, "below_root", late)
    says("no bundle", UnknownBundle, lambda: known.find("one"))
    assert made.names() == ()


def test_a_bundle_of_root_takes_the_place_of_an_upload(tmp_path):
    uploads, root = tmp_path / "uploads", tmp_path / "root"
    write_bundle(root / "one", 1)
    made, _ = store(tmp_path, 0, uploads=uploads, root=root)
    made.put("one", upload(tmp_path, 9))
    assert use(made, "one") == [9]
    made.put_from("one", "one")
    assert use(made, "one") == [1] and names_in(uploads) == []


# ---- all at once ------------------------------------------------------------------------------------------------


def test_nobody_sees_a_half_or_wrong_bundle(tmp_path):
    """Eight threads put, remove and use four names in room for three; each put of a name has a number of its own."""
    engine = FakeEngine()
    made = BundleStore(engine, memory=3 * EACH, uploads=tmp_path / "uploads")
    versions = [upload(tmp_path, shift) for shift in range(8)]
    allowed: dict[str, set[int]] = {f"n{number}": set() for number in range(4)}
    wrong: list[object] = []
    uses = [0] * 8

    def run(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(60):
            name = f"n{draw.randrange(4)}"
            try:
                if (what := draw.random()) < 0.15:
                    shift = 2 * int(name[1]) + draw.randrange(2)  # 0, 1 of n0; 2, 3 of n1 …
                    allowed[name].add(shift)
                    made.put(name, versions[shift])
                elif what < 0.2:
                    made.remove(name)
                else:
                    names = [name, f"n{draw.randrange(4)}"][: 1 + draw.randrange(2)]
                    with made.using(names) as found:
                        uses[seed] += 1
                        for one, loaded in zip(names, found, strict=True):
                            time.sleep(draw.random() / 1000)
                            if loaded not in engine.resident or loaded.name != one or loaded.handle not in allowed[one]:
                                wrong.append((one, loaded))
            except (Busy, UnknownBundle):
                continue
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = made.counts()
    assert not wrong and sum(uses) > 50
    assert len(engine.resident) == counts.resident <= 3 and counts.nbytes == counts.resident * EACH
    assert counts.hits + counts.misses >= sum(uses) and not made._names._locks
    for name in made.names():
        made.remove(name)
    assert not engine.resident and made.counts().nbytes == made.counts().resident == 0
    assert made._residents._in_use == made._residents._reserved == 0
    assert names_in(tmp_path / "uploads") == []


# ---- with real bundles ------------------------------------------------------------------------------------------


def test_real_bundles_are_checked_as_everywhere(tmp_path):
    engine = TorchEngine(Model(tiny.backbone("mit")))
    made = BundleStore(engine, memory=2**30, uploads=tmp_path / "uploads", root=tmp_path)
    gn.save(tiny.model("mit", gn.LoRA(rank=2)), tmp_path / "one")
    gn.save(tiny.model("vit", gn.LoRA(rank=2)), tmp_path / "foreign")
    sound = files_of(tmp_path / "one")
    assert set(made.put("new", sound)["tasks"]) == set(tiny.TASKS)
    with ExitStack() as stack:
        one, new = stack.enter_context(made.using(["one", "new"]))
        assert one.sha256 == new.sha256 and len(engine.model.tasks) == 2 * len(tiny.TASKS)
    torn = {**sound, "weights.safetensors": sound["weights.safetensors"][:-1]}
    says("differs from what was saved", BundleError, lambda: made.put("new", torn))
    says("new/weights.safetensors", BundleError, lambda: made.put("new", torn))
    says("belongs to backbone", BundleError, lambda: made.put("new", files_of(tmp_path / "foreign")))
    says("foreign: belongs to backbone", BundleError, lambda: use(made, "foreign"))
    says("this server's trunk is mit_b0: serve the bundle from another", BundleError, lambda: use(made, "foreign"))
    assert made.names() == ("new", "one")
    odd = {**sound, "SHA256SUMS": b"0" * 64 + b"  bundle.json\n"}
    says("SHA-256", BundleError, lambda: made.put("new", odd))
    made.remove("new"), made.remove("one")
    assert not engine.model.tasks
