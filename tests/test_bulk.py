"""Bulk prediction without a cluster: what is given, blocks, parts, going on, and what a worker does with a block."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import random
import sys
import types
from pathlib import Path

import pytest

import bulk_cases as made
import garnish as gn
from garnish.cli import main
from garnish.cluster.bulk import BulkAsked, _room
from garnish.cluster.bulk_bench import Bench, BulkJob
from garnish.cluster.bulk_blocks import MOST_PICTURES, Block, block_key, planned_blocks
from garnish.cluster.bulk_inputs import BulkFile, bulk_files, check_made_names
from garnish.cluster.bulk_manifest import (
    FOLDER,
    Earlier,
    Part,
    PictureRecord,
    begin_run,
    better,
    part_name,
    read_parts,
    run_key,
    write_manifest,
)
from garnish.cluster.bulk_worker import BulkWorker
from garnish.cluster.connecting import connected, ray_address
from garnish.cluster.shipped_model import model_digests, shipped
from garnish.errors import DataError, OptionError
from garnish.files.given_pictures import picture_files
from garnish.predicting.write_options import WriteOptions
from garnish.stores.place import Place
from garnish.tiles.tiling import Tiling


def given(name: str, version: str = "1-1") -> BulkFile:
    return BulkFile(name, f"in/{name}.png", "s3://b/in", f"{name}.png", version, 1)


# ---- what is given ---------------------------------------------------------------------------------------------------


def test_pictures_of_this_machine_are_named_as_predict_names_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.put_pictures(Path("in"), 7)
    made.put_pictures(Path("more"), 2)
    made.put_pictures(Path("in/maps"), 1)
    words = ["in", "more/d0/0000.png", "more/**/*.png"]
    truth = picture_files(words, Path("in/maps"))
    found = bulk_files(words, str(tmp_path / "in/maps"))
    assert {file.name: Path(file.file) for file in found} == {name: file.absolute() for name, file in truth.items()}
    assert all(file.size == Path(file.file).stat().st_size and not file.is_shard for file in found)


def test_what_is_given_of_a_store_is_named_below_it(tmp_path):
    store = Place.of("memory://bulk-given")
    for name in ("a/1.png", "a/1.jpg", "2.tif", "notes.txt", ".hidden/3.png", "out/a_seg.png", "s/x.tar"):
        store.write(name, b"x")
    found = bulk_files(["memory://bulk-given/"], "memory://bulk-given/out")
    assert [(file.name, file.file) for file in found] == [
        ("2", "2.tif"), ("a/1", "a/1.jpg"), ("a/1_2", "a/1.png"), ("s/x", "s/x.tar"),
    ]  # fmt: skip
    assert [file.is_shard for file in found] == [False, False, False, True]
    one = bulk_files(["memory://bulk-given/a/1.png", "memory://bulk-given/a/*.png"], "memory://elsewhere")
    assert [(file.name, file.where) for file in one] == [("1", "memory://bulk-given/a/1.png")]
    store.write("a/1.png", b"xyz")
    (other,) = bulk_files(["memory://bulk-given/a/1.png"], "memory://elsewhere")
    assert other.version != one[0].version
    with pytest.raises(DataError, match="holds no picture"):
        bulk_files(["memory://bulk-given/none"], "memory://elsewhere")
    store.write("v/clip.mp4", b"x")
    with pytest.raises(OptionError, match=r"clip\.mp4: videos are not predicted with --on"):
        bulk_files(["memory://bulk-given/v"], "memory://elsewhere")


def test_maps_that_would_replace_others_are_refused(tmp_path):
    with pytest.raises(OptionError, match=r"a_b_seg\.png would be seg of in/a_b\.png, and another map of in/a\.png"):
        check_made_names([given("a"), given("a_b")], ["b_seg", "seg"], "s3://b/out")
    with pytest.raises(OptionError, match=r"seg of in/a\.png would replace in/a_seg\.png"):
        check_made_names([given("a"), given("a_seg")], ["seg"], "s3://b/in")
    check_made_names([given("a"), given("a_seg")], ["seg"], "s3://b/out")
    made.put_tar(tmp_path / "s.tar", {})
    (tmp_path / "s").mkdir()
    (tmp_path / "s/p.png").write_bytes(b"x")
    with pytest.raises(OptionError, match="maps of its pictures would lie in s/ among those of others"):
        bulk_files([str(tmp_path)], "out")


# ---- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_hold_each_file_once_and_are_named_by_what_they_hold():
    draw = random.Random(0)
    for _ in range(12):
        count, workers = draw.randrange(1, 700), draw.randrange(1, 40)
        files = [given(f"{number:05}") for number in range(count)]
        files += [BulkFile(f"s{n}", f"s{n}.tar", "", f"/s{n}.tar", "1-1", 1) for n in range(draw.randrange(4))]
        tries = {file.name: 1 for file in draw.sample(files, min(3, count))}
        blocks = list(planned_blocks(files, tries, workers))
        held = [file.name for block in blocks for file in block.files]
        assert sorted(held) == sorted(file.name for file in files)
        assert max(len(block.files) for block in blocks) <= MOST_PICTURES
        assert all(Block.of(block.text()) == block for block in blocks)
        assert len({block_key("run", block) for block in blocks}) == len(blocks)
    block = Block((given("a"), given("b")), {})
    others = [
        Block((given("b"), given("a")), {}),
        Block((given("a"), given("b", "1-2")), {}),
        Block((given("a"), given("b")), {"b": 1}),
        Block((given("a"),), {}),
    ]
    assert len({block_key("run", one) for one in (block, *others)} | {block_key("other", block)}) == 6
    assert block_key("run", block) == block_key("run", Block((given("a"), given("b")), {}))


# ---- parts and going on ----------------------------------------------------------------------------------------------

DONE = PictureRecord("a", "in/a.png", "1-1", {"a_seg.png": 3})
FAILED = PictureRecord("a", "in/a.png", "1-1", {}, "damaged\n\x1b[31m", 1)


def test_a_part_is_read_as_it_was_written_and_never_when_it_is_cut():
    part = Part((DONE, PictureRecord("ü", "in/ü.png", "2-1", {}, "damaged", 2, "s")), ("s", "1-1"))
    text = part.text("0" * 32)
    assert Part.of(text, "0" * 32) == part
    for cut in range(len(text) - 1):  # the last character is the end of a line
        with pytest.raises(ValueError):
            Part.of(text[:cut] or "x", "0" * 32)
    with pytest.raises(ValueError):
        Part.of(text, "1" * 32)
    assert "\x1b" not in Part((FAILED,)).text("0" * 32)


def test_what_earlier_runs_did_does_not_depend_on_the_order_of_parts():
    records = [
        DONE,
        FAILED,
        PictureRecord("a", "in/a.png", "0-0", {"a_seg.png": 9}),
        PictureRecord("gone", "x", "1", {"x": 1}),
    ]
    for order in itertools.permutations(records):
        earlier = Earlier.of([Part((record,)) for record in order], {"a": "1-1"})
        assert earlier.records == {"a": DONE}
    worse = PictureRecord("a", "in/a.png", "1-1", {}, "damaged", 2)
    assert better(FAILED, worse) == better(worse, FAILED) == worse


def test_what_is_pending():
    files = [given("a"), given("b"), given("c"), BulkFile("s", "s.tar", "", "/s.tar", "1-1", 1)]
    parts = [
        Part((DONE, PictureRecord("b", "in/b.png", "1-1", {}, "damaged", 1))),
        Part((PictureRecord("s/1", "s.tar: 1", "1-1", {"s/1_seg.png": 5}, shard="s"),)),
        Part((), ("s", "1-1")),
    ]
    earlier = Earlier.of(parts, {file.name: file.version for file in files})
    there = {"a_seg.png": 3, "s/1_seg.png": 5}
    assert [file.name for file in earlier.pending(files, there)] == ["b", "c"]
    assert [file.name for file in earlier.pending(files, {**there, "a_seg.png": 2})] == ["a", "b", "c"]
    assert [file.name for file in earlier.pending(files, {"a_seg.png": 3})] == ["b", "c", "s"]
    unfinished = Earlier.of(parts[:2], {file.name: file.version for file in files})
    assert [file.name for file in unfinished.pending(files, there)] == ["b", "c", "s"]


def test_a_place_that_was_begun_with_something_else_is_refused(tmp_path):
    place, facts = Place.of(tmp_path), {"bundle": ["0f"], "write": ["maps"], "flip": False}
    begin_run(place, facts)
    begin_run(place, dict(facts))
    for key, value, says in [
        ("bundle", ["1f"], "bundle ['0f'], not ['1f']"),
        ("write", ["maps", "sheet"], "write ['maps'], not ['maps', 'sheet']"),
        ("flip", True, "flip False, not True"),
    ]:
        with pytest.raises(OptionError) as error:
            begin_run(place, {**facts, key: value})
        assert f"was begun with {says}; choose another --out" in str(error.value) and len(str(error.value)) < 400
    (tmp_path / FOLDER / "run.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        begin_run(place, facts)


def test_the_manifest_counts_each_picture_once(tmp_path):
    records = {
        "a": DONE,
        "b": PictureRecord("b", "b.png", "1", {}, "damaged", 1),
        "c": PictureRecord("c", "c", "1", {"c": 2}),
    }
    found = write_manifest(Place.of(tmp_path), {"flip": False}, records, before=1, seconds=1.5)
    assert found == json.loads((tmp_path / FOLDER / "manifest.json").read_text())
    assert (found["pictures"], found["predicted"], found["left_out"], found["failed"], found["bytes"]) == (
        3,
        1,
        1,
        1,
        5,
    )


# ---- what a worker does ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return made.save_small(tmp_path_factory.mktemp("bulk") / "bundle")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return made.put_pictures(tmp_path_factory.mktemp("pictures"), 3, broken=1)


@pytest.fixture(scope="module")
def truth(bundle, pictures, tmp_path_factory) -> dict[str, bytes]:
    """What ``garnish predict`` writes."""
    out = tmp_path_factory.mktemp("truth") / "maps"
    assert main(["predict", bundle, str(pictures), "--out", str(out), "--coco"]) == 1
    return made.maps_of(out)


loaded = functools.cache(gn.load)


def job(bundle: str, out: str, *, as_bytes: bool = False) -> BulkJob:
    model, options = loaded(bundle), WriteOptions(out=Path("unused"), kinds=("maps", "sheet", "coco"))
    facts = BulkAsked("ray", [], out, options).facts(model, model_digests([bundle], model))
    begin_run(Place.of(out), facts)
    sent = shipped([bundle], model, as_bytes=as_bytes)
    return BulkJob(sent, out, facts, run_key(facts), options, None, None, Tiling(), None, "cpu")


def test_a_worker_writes_what_predict_writes_and_once(bundle, pictures, truth, tmp_path):
    asked = job(bundle, str(tmp_path))
    bench = Bench(asked)
    block = Block(tuple(bulk_files([str(pictures)], str(tmp_path))), {})
    ((key, part, again),), failed = bench.predicted(block)
    assert made.maps_of(tmp_path) == truth and not again and not failed
    assert {name: len(data) for name, data in truth.items()} == {n: s for r in part.records for n, s in r.files.items()}
    assert [record.name for record in part.records if record.failed] == ["d0/0003"]
    assert list(read_parts(Place.of(str(tmp_path)))) == [part]
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert bench.predicted(block) == ([(key, part, True)], [])
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}, (
        "not written anew"
    )
    lost = sorted(truth)[0]
    (tmp_path / lost).unlink()
    assert not bench.predicted(block)[0][0][2] and made.maps_of(tmp_path) == truth
    (tmp_path / part_name(key)).write_text(part.text(key)[:-30])
    assert not bench.predicted(block)[0][0][2], "a damaged part counts for nothing"
    tried = Block(block.files, {"d0/0003": 1})
    assert [r.tries for r in bench.predicted(tried)[0][0][1].records if r.failed] == [2]


def test_pictures_of_a_store_go_to_a_store(bundle, pictures, truth):
    source, out = Place.of("memory://bulk-in"), "memory://bulk-out"
    for file in sorted(pictures.rglob("*.png")):
        source.send(file, file.relative_to(pictures).as_posix())
    files = (*bulk_files(["memory://bulk-in"], out), given("absent"))
    files = tuple(BulkFile(f.name, f.where, "memory://bulk-in", f.file, f.version, f.size) for f in files)
    ((_, part, _),), _ = Bench(job(bundle, out, as_bytes=True)).predicted(Block(files, {}))
    place = Place.of(out)
    found = {name: place.read(name, most=2**30) for name in place.names()}
    assert found == truth
    failed = {record.name: record.failed for record in part.records if record.failed}
    assert set(failed) == {"absent", "d0/0003"} and "there is no such file" in failed["absent"]


def test_pictures_of_shards(bundle, pictures, truth, tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = [file.relative_to(pictures).as_posix() for file in sorted(pictures.rglob("*.png"))]
    members = {name: (pictures / name).read_bytes() for name in names}
    others = {"d0/0000.json": b"{}", "d0/.h.png": b"x", "d0/0000.left.png": members[names[0]], "d0/empty.png": b""}
    made.put_tar(tmp_path / "in/t.tar", {**members, **others})
    table = pyarrow.table({"image": [{"bytes": data, "path": None} for data in members.values()], "name": names})
    parquet.write_table(table, tmp_path / "in/p.parquet")
    out = tmp_path / "out"
    bench = Bench(job(bundle, str(out)))
    for file in bulk_files([str(tmp_path / "in")], str(out)):
        parts, failed = bench.predicted(Block((file,), {}))
        assert not failed and parts[-1][1].shard == (file.name, file.version)
        broken = [record.picture for _, part, _ in parts for record in part.records if record.failed]
        assert len(broken) == (3 if file.name == "t" else 1), broken
        assert all(part[2] for part in bench.predicted(Block((file,), {}))[0][:-1])
    wanted = {f"{shard}/{name}": data for shard in ("p", "t") for name, data in truth.items()}
    assert made.maps_of(out) == wanted
    made.put_tar(tmp_path / "evil.tar", {"../evil.png": members[names[0]]})
    parts, (record,) = bench.predicted(Block((*bulk_files([str(tmp_path / "evil.tar")], str(out)),), {}))
    assert not parts and "is no name of a file" in record.failed and not list(tmp_path.rglob("evil_*"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "in/t.tar").read_bytes()[:1500])
    parts, (record,) = bench.predicted(Block((*bulk_files([str(cut)], str(out)),), {}))
    assert not parts and "cut short" in record.failed and record.name == "cut"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_keys_of_shards_are_those_of_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    from garnish.cluster.sample_files import samples

    keys = ["a", "b/c", "b/000123", "with space", "x-1_2"]
    with webdataset.TarWriter(str(tmp_path / "s.tar")) as writer:
        for number, key in enumerate(keys):
            writer.write({"__key__": key, "png": made.picture_bytes(number), "json": {"n": 1}, "cls": 3})
    truth = [(one["__key__"], one["png"]) for one in webdataset.WebDataset(str(tmp_path / "s.tar"), shardshuffle=False)]
    assert [(sample.key, sample.data) for sample in samples(tmp_path / "s.tar")] == truth
    assert [key for key, _ in truth] == keys


def test_a_worker_says_in_its_answer_what_it_refuses(bundle, tmp_path):
    asked = job(bundle, str(tmp_path / "out"))
    row = {"block": Block((given("a"),), {}).text()}
    (tmp_path / "out" / FOLDER / "run.json").write_text('{"asked": {}}')
    assert "a node does not see .garnish-predict/run.json" in json.loads(BulkWorker(asked)(row)["answer"])["refused"]
    other = BulkJob(**{**vars(asked), "version": "0.0.1"})
    assert "the command 0.0.1; install the same" in json.loads(BulkWorker(other)(row)["answer"])["refused"]


# ---- the whole, with workers of this process ------------------------------------------------------------------------


class Died(Exception):
    """Stands for the end of a command."""


class HereRay:
    """What :func:`predict_on` asks of Ray, done in this process: a worker, blocks in a drawn order, a death."""

    class exceptions:
        RayError = OSError

    def __init__(self, draw: random.Random, dies_after: int | None) -> None:
        self.draw, self.dies_after, self.blocks = draw, dies_after, 0
        self.data = types.ModuleType("ray.data")
        self.data.ActorPoolStrategy = lambda **words: words
        self.data.DataContext = types.SimpleNamespace(get_current=types.SimpleNamespace)
        self.data.from_items = lambda items, override_num_blocks: types.SimpleNamespace(
            map=functools.partial(self.mapped, items)
        )

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def mapped(self, items, worker, *, fn_constructor_args, **settings):
        def rows():
            made = worker(*fn_constructor_args)
            for row in self.draw.sample(items, len(items)):
                if self.blocks == self.dies_after:
                    raise Died
                self.blocks += 1
                yield made(row)

        return types.SimpleNamespace(iter_rows=rows)


@pytest.fixture
def typed(monkeypatch):
    """Types the command, with a death after so many blocks."""

    def run(words: list[str], dies_after: int | None = None) -> int:
        ray = HereRay(random.Random(len(words)), dies_after)
        monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
        monkeypatch.setitem(sys.modules, "ray.data", ray.data)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        monkeypatch.setattr("garnish.cluster.bulk.connected", lambda on: contextlib.nullcontext(ray))
        return main(["predict", "--on", "ray", *words])

    return run


def test_the_command_goes_on_wherever_it_died(bundle, tmp_path, typed, capsys):
    made.put_pictures(tmp_path / "in", 12, broken=1)
    assert main(["predict", bundle, str(tmp_path / "in"), "--out", str(tmp_path / "plain")]) == 1
    truth = made.maps_of(tmp_path / "plain")
    words = [bundle, str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    for dies_after in (0, 3, 1):
        assert typed(words, dies_after) == 1  # an error that nobody foresaw
        assert "Died" in capsys.readouterr().err
        assert not (tmp_path / "out" / FOLDER / "manifest.json").exists()
    assert typed(words) == 1
    said = capsys.readouterr().err
    assert "1 of 13 pictures not predicted:" in said and "0012.png: damaged or not a picture" in said
    assert made.maps_of(tmp_path / "out") == truth
    counts = json.loads((tmp_path / "out" / FOLDER / "manifest.json").read_bytes())
    assert (counts["pictures"], counts["failed"]) == (13, 1) and 0 < counts["left_out"] < 12
    assert counts["predicted"] + counts["left_out"] + counts["failed"] == 13
    assert counts["bytes"] == sum(map(len, truth.values()))
    (tmp_path / "in/d0/0012.png").write_bytes(made.picture_bytes(12))
    assert typed([*words, "--json"]) == 0
    found = capsys.readouterr()
    counts = json.loads((tmp_path / "out" / FOLDER / "manifest.json").read_bytes())
    assert (counts["predicted"], counts["left_out"], counts["failed"], len(json.loads(found.out))) == (1, 12, 0, 13)
    assert typed([*words, "--flip"]) == 2
    assert "was begun with flip False, not True; choose another --out" in capsys.readouterr().err


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--skip-existing --on ray", "--skip-existing: with --on what is finished is known from OUT/.garnish-predict"),
        ("--every 2 --on ray", "--every 2: acts on videos, which --on does not take"),
        ("--workers 2", "--workers 2: acts with --on alone"),
        ("--on spark", "--on: 'spark' is unknown; write ray for one of this machine"),
        ("--on ray://", "--on: 'ray://' is unknown"),
    ],
)
def test_options_that_cannot_act_are_refused(words, says, capsys):
    assert main(["predict", "b", "p.png", "--out", "maps", *words.split()]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and len(said) < 400


def test_without_ray_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"--on ray: needs Ray; pip install 'garnish\[ray\]'"), connected("ray"):
        pass
    assert ray_address("ray://head:10001") == "ray://head:10001" and ray_address("ray:auto") == "auto"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["predict", "b", "p.png", "--out", "maps", "--on", "ray"]) == 2
    assert "pip install 'garnish[ray]'" in capsys.readouterr().err


def test_how_many_workers_a_cluster_has_room_for(caplog):
    def room(resources, **words):
        return _room(resources, BulkAsked(words.pop("on", "ray:auto"), [], "out", WriteOptions(out=Path("o")), **words))

    assert room({"CPU": 6.0}) == (6, 1.0, 0.0)
    assert room({"CPU": 16.0, "GPU": 2.0}) == (2, 4.0, 1.0)
    assert room({"CPU": 3.0, "GPU": 2.0}) == (2, 1.0, 1.0)
    assert room({"CPU": 16.0, "GPU": 2.0}, device="cpu", workers=3) == (3, 1.0, 0.0)
    assert room({"CPU": 2.0}, workers=5)[0] == 5 and "the cluster has room for 2 now" in caplog.text
    with pytest.raises(OptionError, match="--workers 5: this machine has 2 processors"):
        room({"CPU": 2.0}, workers=5, on="ray")
    with pytest.raises(OptionError, match="has no GPUs"):
        room({"CPU": 2.0}, device="cuda")
    with pytest.raises(OptionError, match="no processors"):
        room({})
