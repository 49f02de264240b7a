"""Many pictures: where they come from, in which order they come, what fails, and the command that a user types."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import exported_folders as made
import garnish as gn
import tiny
from garnish.cli import main
from garnish.decodings.unitless_depth import UnitlessDepth
from garnish.errors import DataError, GarnishError, OptionError
from garnish.files.given_pictures import picture_files
from garnish.pictures.raster import Window
from garnish.predicting.overlapping import PictureWork, TakenPicture, overlapped
from garnish.predicting.picture_sources import PictureSource, picture_sources
from garnish.runtime import Session
from garnish.runtime.command import runtime_main
from garnish.tiles.blending import FinishedMaps
from garnish.tiles.passes import run_windows
from garnish.tiles.plan import tile_plan

TASKS = {"seg": gn.Semantic(classes=3), "depth": gn.Depth(max_metres=9.0)}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return gn.adapt(tiny.backbone("mit"), gn.BitFit(), TASKS).eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("bundle")
    trunk = tiny.backbone("mit")
    weights = {trunk.source_names.get(name, name): tensor for name, tensor in trunk.frozen_tensors().items()}
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, folder / "trunk.safetensors")
    trunk = gn.backbone(trunk.name, str(folder / "trunk.safetensors"), options=trunk.options)
    gn.save(gn.adapt(trunk, gn.BitFit(), TASKS).eval(), folder / "bundle")
    return str(folder / "bundle")


def picture(seed: int, size: tuple[int, int] = (32, 40)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def put(file: Path, seed: int = 0, size: tuple[int, int] = (32, 40)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, size)).save(file)
    return file


def video(file: Path, count: int, options: dict[str, str] | None = None) -> Path:
    """Frames of one grey each, 20 apart."""
    import av

    with av.open(str(file), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 48, 32, "yuv420p", 4_000_000
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 20 * number % 256, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


# ---- where pictures come from -----------------------------------------------------------------------------------


def test_names_of_files_folders_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.png", "in/a.jpg", "in/sub/b.png", "in/.hidden/c.png", "in/out/b_seg.png", "other/b.png"):
        put(Path(name))
    assert list(picture_files(["in"], Path("in/out"))) == ["a", "b", "sub/b"]
    assert list(picture_files(["in/b.png", "other", "in"], Path("in/out"))) == ["b", "b_2", "a", "sub/b"]
    assert list(picture_files(["in/**/*.png"], Path("in/out"))) == ["b", "sub/b"]
    assert list(picture_files(["*/b.png"])) == ["in/b", "other/b"]
    for given, says in (("gone", "no such picture"), ("in/*.bmp", "no picture has such a name"), (".", None)):
        if says is None:
            assert len(picture_files([given])) == 5
        else:
            with pytest.raises(DataError, match=says):
                picture_files([given])


def test_arrays_lists_and_generators(tmp_path):
    file = put(tmp_path / "x.png")
    batch = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for given, names in (
        (picture(0), ["picture"]),
        (np.stack([picture(0)] * 3), ["picture1", "picture2", "picture3"]),
        (batch, ["picture1", "picture2"]),
        ([picture(0), file, str(file), Image.fromarray(picture(1))], ["picture1", "x", "x_2", "picture4"]),
        ((part for part in (tmp_path, picture(0))), ["x", "picture2"]),
        (file, ["x"]),
    ):
        assert [source.name for source in picture_sources(given)] == names


def test_frames_of_a_video(tmp_path, caplog):
    caplog.set_level("INFO", "garnish")
    file = video(tmp_path / "clip.mp4", 7)
    found = list(picture_sources(file, every=3))
    assert [source.name for source in found] == ["clip/000000", "clip/000003", "clip/000006"]
    assert f"{file}: 7 frames, 12 per second, of which one in 3 is taken" in caplog.text
    for source, grey in zip(found, (0, 60, 120), strict=True):
        pixels = source.picture()
        assert pixels.shape == (32, 48, 3) and abs(pixels.mean() - grey) < 6
    file.write_bytes(b"no video")
    (only,) = picture_sources(file)
    with pytest.raises(DataError, match=r"clip.mp4: cannot be read as a video .*; replace the file"):
        only.picture()


@pytest.mark.parametrize("name, options", [("c.mkv", {}), ("c.mp4", {"movflags": "faststart"})])
def test_a_video_that_was_cut_short_is_told(tmp_path, caplog, name, options):
    whole = video(tmp_path / name, 60, options=options)
    assert len(list(picture_sources(whole))) == 60 and "cut short" not in caplog.text
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 10 < len(list(picture_sources(cut))) < 50
    assert f"{cut}: ends after" in caplog.text and "that its header tells; it may have been cut short" in caplog.text


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    file = video(tmp_path / "clip.mp4", 2)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(GarnishError, match=r"pip install 'garnish\[video\]'"):
        next(picture_sources(file))


# ---- threads ----------------------------------------------------------------------------------------------------


def sources(count: int, size: int = 4) -> list[PictureSource]:
    return [PictureSource(str(k), str(k), np.full((size, size, 3), k % 256, np.uint8)) for k in range(count)]


def work(run=lambda given: given, read=lambda source: source.given, batch: int = 1) -> PictureWork:
    def taken(source: PictureSource) -> TakenPicture:
        pixels = read(source)
        return TakenPicture(pixels, pixels.transpose(2, 0, 1))

    return PictureWork(
        read=taken,
        run=lambda sources, pictures: run([int(p.given[0, 0, 0]) for p in pictures]),
        finish=lambda source, picture, raw: raw,
        batch=lambda shape: batch,
    )


def test_results_are_in_order_whatever_takes_long():
    draw = np.random.default_rng(0).uniform(0, 0.004, 60)

    def read(source: PictureSource) -> np.ndarray:
        time.sleep(draw[int(source.name)])
        return source.given

    assert list(overlapped(sources(60), work(read=read), lambda made: made)) == list(range(60))


def test_neighbours_of_one_size_share_a_pass():
    sizes, given = [], sources(5) + sources(3, size=5) + sources(2)
    run = lambda numbers: (sizes.append(len(numbers)), numbers)[1]  # noqa: E731
    found = list(overlapped(given, work(run, batch=4), lambda made: made))
    assert sizes == [4, 1, 3, 2] and found == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1]


def test_a_generator_is_asked_for_a_bounded_number_ahead():
    asked = []

    def endless():
        for source in sources(10_000):
            asked.append(source)
            yield source

    found = overlapped(endless(), work(), lambda made: made)
    for number in range(5):
        assert next(found) == number
        time.sleep(0.05)
        assert len(asked) <= number + 1 + 8 + 4 + 6  # read ahead, results that wait, under way
    before = threading.active_count()
    found.close()
    assert threading.active_count() < before and len(asked) < 50


def test_reading_a_pass_and_writing_are_under_way_at_once():
    """Each waits for the others to be there as well, which in turn they never are."""
    together = threading.Barrier(3, timeout=20)
    met = {"read": 0, "run": 0, "write": 0}

    def meet(what: str) -> None:
        met[what] += 1
        if met[what] == {"read": 3, "run": 2, "write": 1}[what]:
            together.wait()

    def read(source: PictureSource) -> np.ndarray:
        meet("read") if source.name == "2" else met.update(read=max(met["read"], min(met["read"] + 1, 2)))
        return source.given

    run = lambda numbers: (meet("run"), numbers)[1]  # noqa: E731
    assert list(overlapped(sources(3), work(run, read), lambda made: (meet("write"), made)[1])) == [0, 1, 2]


def test_failures_are_in_place_and_other_errors_end_it(model):
    def read(source: PictureSource) -> np.ndarray:
        if source.name in ("1", "3"):
            raise DataError(f"{source.name}: damaged")
        return source.given

    found = list(overlapped(sources(5), work(read=read), lambda made: made))
    assert [str(r.error) if r not in range(5) else r for r in found] == [0, "1: damaged", 2, "3: damaged", 4]

    def fails(made: int) -> int:
        raise DataError("no space")

    for broken in (
        lambda: overlapped(sources(5), work(), fails),
        lambda: overlapped(sources(5), work(lambda numbers: 1 / 0), lambda made: made),
        lambda: overlapped((1 / 0 for _ in range(3)), work(), lambda made: made),
    ):
        with pytest.raises((DataError, ZeroDivisionError)):
            list(broken())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("garnish-passes")]


def test_large_pictures_are_not_read_ahead_by_their_number(monkeypatch):
    """A picture of ten bands and 4096 by 4096 pixels takes 0.7 GB, eight of them more than many machines have."""
    monkeypatch.setattr("garnish.predicting.overlapping._MOST_BYTES", 4 * 4 * 3 + 1)  # a picture and a bit
    taken, read, most = threading.Semaphore(0), [], []

    def reading(source: PictureSource) -> np.ndarray:
        read.append(source.name)
        time.sleep(0.01)  # in which all that is read ahead could be begun
        return source.given

    def run(numbers: list[int]) -> list[int]:
        taken.acquire(timeout=5)
        most.append(len(read) - numbers[0] - 1)  # read, and not yet in a pass
        return numbers

    found = overlapped(sources(20), work(run, reading), lambda made: made)
    threading.Timer(0.3, lambda: taken.release(20)).start()
    assert list(found) == list(range(20)) and len(read) == 20
    assert max(most) <= 4  # those of the bound, and one more in each of two threads


def test_closing_waits_for_one_window_not_for_a_picture():
    begun, seen = threading.Event(), []

    def read(window: Window) -> np.ndarray:
        seen.append(window)
        begun.set()
        time.sleep(0.001)
        return np.zeros((1, 16, 16), np.uint8)

    def run(numbers: list[int]) -> list[int]:
        if numbers == [1]:
            raws = lambda pixels: {"x": pixels.astype(np.float32)}  # noqa: E731
            decoding = UnitlessDepth(larger="nearer")
            tasks = {"x": (decoding, FinishedMaps(decoding))}
            run_windows(tile_plan((1600, 1600), 16, 0, 16), read, raws, tasks, lambda task, rows: None)
        return numbers

    found = overlapped(sources(2), work(run), lambda made: made)
    assert next(found) == 0 and begun.wait(5)
    found.close()
    assert len(seen) < 5000  # of 10,000


# ---- models and exported folders ----------------------------------------------------------------------------------


def test_many_are_what_one_by_one_are(model, tmp_path):
    files = [put(tmp_path / f"{k}.png", k, (32, 40) if k < 4 else (24, 33)) for k in range(6)]
    alone = [model.predict(file) for file in files]
    for found in (
        list(model.predict_many(tmp_path)),
        list(model.predict_many(str(tmp_path / "*.png"), batch=3)),
        list(model.predict_many(torch.stack([torch.from_numpy(p.picture).permute(2, 0, 1) for p in alone[:4]]))),
    ):
        assert len(found) >= 4
        for one, other in zip(found, alone, strict=False):
            assert (one.picture == other.picture).all()
            torch.testing.assert_close(one["depth"], other["depth"], rtol=1e-5, atol=1e-6)
            assert (one["seg"] == other["seg"]).float().mean() > 0.999
    assert [p.name for p in model.predict_many(tmp_path)] == [str(k) for k in range(6)]


def test_what_cannot_be_read_is_raised_or_kept(model, tmp_path):
    put(tmp_path / "a.png"), put(tmp_path / "c.png")
    (tmp_path / "b.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"b\.png: damaged"):
        list(model.predict_many(tmp_path))
    failures = []
    assert [p.name for p in model.predict_many(tmp_path, failures=failures)] == ["a", "c"]
    assert [failure.source.name for failure in failures] == ["b"]
    for how, says in (({"tasks": ["dept"]}, "no task 'dept'"), ({"every": 0}, "every"), ({"batch": 0}, "batch")):
        with pytest.raises(OptionError, match=says):
            model.predict_many(tmp_path, **how)
    with pytest.raises(DataError, match="call predict_many"):
        model.predict(tmp_path)


def test_what_is_no_picture_of_a_list_stops_nothing(model):
    given, failures = [picture(0), "gone.png", None, 7, {}, picture(1)], []
    found = list(model.predict_many(iter(given), failures=failures))
    assert [maps.name for maps in found] == ["picture1", "picture6"]
    told = ["gone.png: no such picture", "a NoneType is no picture", "a int is no picture", "a dict is no picture"]
    assert all(str(failure.error).startswith(text) for failure, text in zip(failures, told, strict=True))
    for one in ("gone.png", None, [None]):
        with pytest.raises(DataError, match=r"no such picture|NoneType is no picture"):
            list(model.predict_many(one))


def test_an_exported_folder_does_the_same(tmp_path):
    session = Session(made.merged(tmp_path / "exported"), threads=1)
    files = [put(tmp_path / f"in/{k}.png", k) for k in range(3)]
    (tmp_path / "in/bad.png").write_bytes(b"x")
    failures = []
    found = list(session.predict_many(tmp_path / "in", probabilities=True, failures=failures))
    assert [p.name for p in found] == ["0", "1", "2"] and [f.source.name for f in failures] == ["bad"]
    for one, file in zip(found, files, strict=True):
        alone = session.predict(file, probabilities=True)
        assert all((one[task] == alone[task]).all() for task in alone.maps)
        raw = session.outputs(one.picture.transpose(2, 0, 1)[None].copy())["seg"][0].astype(np.float64)
        wanted = np.exp(raw - raw.max(0)) / np.exp(raw - raw.max(0)).sum(0)
        np.testing.assert_allclose(one.probabilities("seg"), wanted, atol=1e-5)


# ---- the command --------------------------------------------------------------------------------------------------


def test_the_command_predicts_what_it_can_and_tells_the_rest(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(Path("in/a.png")), put(Path("in/sub/b.jpg"), 1)
    video(Path("in/clip.mp4"), 4)
    Path("in/bad.png").write_bytes(b"x")
    words = ["predict", bundle, "in", "--out", "in/maps", "--every", "3", "--write", "maps,coco", "--overlay"]
    assert main([*words, "--probabilities", "--opacity", "0.5"]) == 1
    out, err = capsys.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        "in/a.png",
        "in/clip.mp4, frame 0",
        "in/clip.mp4, frame 3",
        "in/sub/b.jpg",
    ]
    assert "1 of 5 pictures not predicted:\n  in/bad.png: damaged or not a picture" in err
    of_one = {"seg.png", "depth.png", "seg_overlay.png", "depth_overlay.png", "seg_probabilities.npz", "coco.json"}
    assert {file.name for file in Path("in/maps/sub").iterdir()} == {f"b_{name}" for name in of_one}
    assert {file.name for file in Path("in/maps/clip").iterdir()} == {
        f"{frame}_{name}" for frame in ("000000", "000003") for name in of_one
    }
    stamp = {file: file.stat().st_mtime_ns for file in Path("in/maps").rglob("*.*")}
    Path("in/maps/sub/b_coco.json").unlink()
    Path("in/bad.png").unlink()
    assert main([*words, "--probabilities", "--skip-existing", "--json"]) == 0  # one file lacks: that picture anew
    out, err = capsys.readouterr()
    assert list(json.loads(out)) == ["in/sub/b.jpg"] and "3 pictures left out: their files are there" in err
    assert "what lies there is not predicted" in err
    same = {file for file in stamp if file.stat().st_mtime_ns == stamp[file]}
    assert same == {file for file in stamp if not file.name.startswith("b_")}


def test_a_map_that_lacks_its_place_on_the_ground_is_not_there(bundle, tmp_path, monkeypatch, capsys):
    """An interrupted run may leave the PNG of a GeoTIFF without the GeoTIFF, or the other way round."""
    rasterio = pytest.importorskip("rasterio")
    monkeypatch.chdir(tmp_path)
    place = {"transform": rasterio.Affine(10, 0, 500000, 0, -10, 4000000), "count": 3, "height": 32, "width": 40}
    with rasterio.open("geo.tif", "w", driver="GTiff", dtype="uint8", photometric="RGB", **place) as writer:
        writer.write(picture(0).transpose(2, 0, 1))
    put(Path("plain.tif"))
    words = ["predict", bundle, "geo.tif", "plain.tif", "--out", "maps", "--write", "maps", "--json"]
    assert main([*words]) == 0
    written = json.loads(capsys.readouterr().out)
    assert len(written["geo.tif"]) == 4 and len(written["plain.tif"]) == 2
    for lost in (None, *written["geo.tif"]):
        if lost:
            Path(lost).unlink()
        assert main([*words, "--skip-existing"]) == 0
        assert list(json.loads(capsys.readouterr().out)) == (["geo.tif"] if lost else [])
        assert all(Path(file).is_file() for file in written["geo.tif"])


def test_what_the_command_refuses(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(Path("a.png")), put(Path("b/a.png")), put(Path("a.jpg"))

    def refused(*words: str) -> str:
        assert main(["predict", bundle, *words]) == 2
        assert not Path("maps").exists()
        return capsys.readouterr().err

    assert "unknown kind of file 'mapps'; did you mean 'maps'" in refused("a.png", "--out", "maps", "--write", "mapps")
    assert "is not a number from 0 to 1" in refused("a.png", "--out", "maps", "--opacity", "2")
    assert "is not a whole number from 1" in refused("a.png", "--out", "maps", "--every", "0")
    told = refused("a.png", "b/a.png", "--out", "maps", "--skip-existing")
    assert "b/a.png has the name of another picture" in told and "names of their own" in told
    assert "no picture has such a name" in refused("*.bmp", "--out", "maps")
    assert "no task 'nothing'" in refused("a.png", "--out", "maps", "--tasks", "nothing")


def test_a_disk_that_is_full_ends_it(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for k in range(4):
        put(Path(f"in/{k}.png"), k)
    Path("maps").mkdir()
    Path("maps/1_depth.png").mkdir()  # cannot be replaced by a file
    assert main(["predict", bundle, "in", "--out", "maps"]) == 2
    err = capsys.readouterr().err
    assert "1_depth.png: cannot be written" in err and err.count("\n") == 1
    assert not list(Path("maps").glob(".*"))  # nothing half written
    for file in Path("maps").glob("*.png"):
        if file.is_file():
            Image.open(file).load()


def test_the_runtime_writes_the_same_kinds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made.merged(Path("exported"))
    put(Path("in/a.png")), put(Path("in/s/b.png"))
    Path("in/bad.png").write_bytes(b"x")
    words = ["exported", "in", "--out", "maps", "--tasks", "seg,edges", "--write", "maps", "--coco", "--probabilities"]
    assert runtime_main(words) == 1
    out, err = capsys.readouterr()
    assert out.startswith("in/a.png: maps/a_seg.png, ") and "in/bad.png: damaged" in err
    assert {file.name for file in Path("maps/s").iterdir()} == {
        f"b_{name}"
        for name in ("seg.png", "edges.png", "seg_probabilities.npz", "edges_probabilities.npz", "coco.json")
    }
    assert runtime_main([*words, "--skip-existing"]) == 1
    assert "2 pictures left out" in capsys.readouterr().err


def test_progress_says_speed_and_time_left(monkeypatch):
    from garnish.commands import predict_progress as tested

    clock = iter([0.0, 10.0])
    monkeypatch.setattr(tested.time, "perf_counter", lambda: next(clock, 10.0))
    progress = tested.PredictProgress(500, lines=False)
    progress.done = 100
    assert next(progress.lengths()) == "100/500 pictures  10 pictures/s  0:40 left"
    progress.total = 100 + 10 * 3725
    assert next(progress.lengths()).endswith("1:02:05 left")
