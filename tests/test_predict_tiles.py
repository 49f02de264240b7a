"""Prediction and evaluation in windows and with a mirrored pass: models, exported folders and the commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import exported_folders as made
import garnish as gn
import tiny
from garnish.cli import main
from garnish.decodings.unitless_depth import UnitlessDepth
from garnish.errors import OptionError
from garnish.files.orientation import turn
from garnish.model.streamed import predict_streamed
from garnish.model.windowed import windowed_maps
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands
from garnish.pictures.tiff_raster import TiffRaster
from garnish.runtime import Session
from garnish.runtime.command import runtime_main
from garnish.tiles.passes import planes_reader
from garnish.tiles.tiling import Tiling
from garnish.training.evaluate import evaluate
from test_decodings import _Own
from training_cases import Blobs, every


@pytest.fixture(scope="module")
def model():
    return tiny.model("mit", gn.LoRA(rank=2))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coarse colours under some noise, (height, width, 3) uint8."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 200, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)
    return (coarse[:height, :width] + draw.integers(0, 50, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (1, 50), (37, 1), (50, 63)])
def test_one_window_is_the_whole_pass_and_windows_have_the_pictures_size(model, size):
    pixels = picture(*size)
    whole = model.predict(pixels, tile=None)
    for tile in ("auto", 96, 4096):
        found = model.predict(pixels, tile=tile)
        assert all(torch.equal(found[task], whole[task]) for task in model.tasks)
    cut = model.predict(pixels, tile=32, overlap=5)
    for task in model.tasks:
        assert cut[task].shape == whole[task].shape and cut[task].dtype == whole[task].dtype
    if min(size) > 1:
        length = cut["normals"].norm(dim=0)
        torch.testing.assert_close(length, torch.ones_like(length), atol=1e-5, rtol=0)


def test_each_window_is_run_once_for_all_tasks_and_where_one_counts_alone_it_is_its_own_pass(model, monkeypatch):
    pixels, sizes = picture(64, 96), []
    run = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, x, *a, **k: (sizes.append(x.shape), run(self, x, *a, **k))[1]
    )
    found = model.predict(pixels, tile=64, overlap=16)
    assert sizes == [(1, 3, 64, 64), (1, 3, 64, 64)]  # from 0 and from 32, blended in the middle, 40 … 56
    with torch.inference_mode():
        first = run(model, torch.from_numpy(pixels[:, :64].copy()).permute(2, 0, 1)[None])
    alone = model.tasks["depth"].decode(first["depth"])[0]
    torch.testing.assert_close(found["depth"][:, :40], alone[:, :40])


def test_a_flip_is_the_mean_with_the_pass_of_the_mirrored_picture(model):
    """From the outputs of two passes of torch, by the formulas."""
    pixels = picture(50, 70)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        one = model(images)
        other = {task: raw.flip(-1) for task, raw in model(images.flip(-1)).items()}
    found = model.predict(pixels, flip=True)
    shares = one["seg"].double().softmax(1) + other["seg"].double().softmax(1)
    assert (found["seg"] == shares.argmax(1)[0]).float().mean() > 0.999
    depth = model.tasks["depth"]
    torch.testing.assert_close(found["depth"], (depth.decode(one["depth"]) + depth.decode(other["depth"]))[0] / 2)
    turned = torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    unit = torch.nn.functional.normalize
    normals = unit(unit(one["normals"][0], dim=0) + turned * unit(other["normals"][0], dim=0), dim=0)
    torch.testing.assert_close(found["normals"], normals, atol=1e-5, rtol=0)
    mirrored = model.predict(
        np.ascontiguousarray(pixels[:, ::-1]), flip=True
    )  # so a flip does not know left from right
    torch.testing.assert_close(mirrored["normals"].flip(-1) * turned, found["normals"], atol=1e-5, rtol=0)


def test_a_mirrored_column_is_a_column():
    """NumPy calls one column that runs backwards contiguous, and torch takes none."""
    seen = []

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(torch.from_numpy(pixels).shape)
        return {"x": pixels[:1].astype(np.float32)}

    for size in ((5, 1), (1, 1), (16, 33)):  # the last window of the last is one column
        values, plan = np.zeros((3, *size), np.uint8), Tiling(tile=16, overlap=0).plan(size, 16)
        windowed_maps(plan, planes_reader(values), run, {"x": UnitlessDepth(larger="nearer")}, flip=True)
    assert seen[-1] == (3, 16, 1)
    for size in ((5, 1, 3), (1, 5, 3), (1, 1, 3)):
        for orientation in range(1, 9):
            torch.from_numpy(turn(np.zeros(size, np.uint8), orientation))


def test_what_windows_cannot_do_is_refused_in_one_line(model):
    pixels = picture(40, 90)
    own = gn.adapt(tiny.backbone("mit"), gn.BitFit(), {"own": _Own(), "depth": gn.Depth(max_metres=9.0)}).eval()
    for how in ({"tile": 32}, {"flip": True}):
        with pytest.raises(OptionError, match=r"task 'own' \(_Own\) has no decoding.*predict it whole") as caught:
            own.predict(pixels, **how)
        assert "\n" not in str(caught.value)
        assert own.predict(pixels, ["depth"], **how)["depth"].shape == (40, 90)
    for how in ({"tile": 32, "overlap": 32}, {"tile": None, "overlap": 8}, {"tile": "some"}, {"flip": 1}):
        with pytest.raises(OptionError):
            model.predict(pixels, **how)
    with pytest.raises(OptionError, match=r"nothing"):
        model.predict(pixels, ["nothing"], tile=32)


def test_an_output_that_is_not_finite_is_told_of_windows_too():
    broken = tiny.model("mit", gn.LoRA(rank=2))
    with torch.no_grad():
        for tensor in broken.head_tensors("depth").values():
            tensor.fill_(3e38)
    with pytest.raises(gn.errors.GarnishError, match="the output of task 'depth' is not finite"):
        broken.predict(picture(40, 90), tile=32)


def test_a_graph_of_near_sight_is_the_same_in_windows_but_for_their_borders(tmp_path):
    """Its convolution and resizing see three pixels far, so beyond these each window is as the whole picture."""
    session = Session(made.merged(tmp_path), threads=1)
    pixels = picture(150, 210)
    whole = session.predict(pixels, tile=None)
    found = session.predict(pixels, tile=96, overlap=32)
    for task in ("depth", "normals", "edges"):
        off = np.abs(found[task] - whole[task])
        assert (off > 1e-4 * np.abs(whole[task]).max()).mean() < 0.05, task
        assert off.max() < 0.1 * np.abs(whole[task]).max(), task
    assert (found["seg"] == whole["seg"]).mean() > 0.995
    with pytest.raises(OptionError, match="none would move on"):
        session.predict(pixels, tile=96, overlap=96)
    flipped = session.predict(pixels, flip=True)["depth"]
    other = session.predict(np.ascontiguousarray(pixels[:, ::-1]))["depth"][:, ::-1]
    np.testing.assert_allclose(flipped, (whole["depth"] + other) / 2, rtol=1e-6)


def test_metrics_of_windows_are_those_of_whole_pictures_where_one_window_holds_them(caplog):
    small = tiny.model("swin", gn.LoRA(rank=2), tasks=("seg", "depth"))
    small = gn.adapt(tiny.backbone("swin"), gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3), "depth": gn.Depth()})
    tiny.randomise_own(small)
    data = Blobs(every(3), sizes=((48, 64), (96, 128)))
    whole = evaluate(small, data)
    assert evaluate(small, data, tile=128) == whole and not caplog.records  # Swin's windows see a part of a picture
    cut = evaluate(small, data, tile=64, batch_size=2)
    assert cut["seg"]["miou"] == pytest.approx(whole["seg"]["miou"], abs=0.05) and cut != whole
    partial = evaluate(small, Blobs([["seg"], ["depth"], ["seg", "depth"]], sizes=((96, 128),)), tile=64, batch_size=3)
    assert all(np.isfinite(v) for v in partial["seg"].values()) and np.isfinite(partial["depth"]["rmse"])


def test_a_trunk_that_sees_all_of_a_picture_is_told_of_where_it_is_measured_in_windows(model, caplog):
    model = gn.adapt(tiny.backbone("vit"), gn.BitFit(), {"seg": gn.Semantic(classes=3)})
    evaluate(model, Blobs([["seg"]], sizes=((48, 64),)), tile=32)
    assert "may see all of what is run at once" in caplog.text


def tiff(path: Path, pixels: np.ndarray, **how) -> Path:
    tifffile.imwrite(path, pixels, tile=(32, 48), photometric="rgb", compression="deflate", **how)
    return path


def test_a_picture_that_is_never_held_is_written_as_it_is_predicted(model, tmp_path, monkeypatch):
    """Files of the two ways, by their own readers; and the picture is read by windows alone."""
    pixels, lines = picture(110, 150), []
    file = tiff(tmp_path / "large.tif", pixels)
    windows = []
    read = TiffRaster.read
    monkeypatch.setattr(TiffRaster, "read", lambda self, window=None: (windows.append(window), read(self, window))[1])
    tiling = Tiling(tile=64, overlap=16)
    files = predict_streamed(model, file, tmp_path / "maps", None, tiling, lines.append)
    assert lines == [f"{file}: 150x110 in 12 windows of 64, overlap 16; only maps are written, row by row as TIFF"]
    assert windows == list(tiling.plan((110, 150), 32).windows)
    held = model.predict(pixels, tile=64, overlap=16)
    assert set(files) == set(model.tasks)
    for task, path in files.items():
        assert path == tmp_path / f"maps_{task}.tif"
        decoding = model.tasks[task].decoding
        assert (tifffile.imread(path) == decoding.stored(held[task].numpy())).all()
    with Image.open(files["seg"]) as painted:
        assert painted.mode == "P"
        colours = np.asarray(painted.convert("RGB"))
    assert (colours == model.tasks["seg"].paint(held["seg"])).all()


def test_maps_lie_where_the_picture_does(model, tmp_path):
    import rasterio

    file = tmp_path / "place.tif"
    place = rasterio.transform.from_origin(500_000, 5_600_000, 0.2, 0.2)
    with rasterio.open(
        file, "w", driver="GTiff", width=70, height=50, count=3, dtype="uint8", crs="EPSG:32632", transform=place
    ) as made_file:
        made_file.write(picture(50, 70).transpose(2, 0, 1))
    files = predict_streamed(model, file, tmp_path / "m", ["depth"], Tiling(tile=32), lambda line: None)
    with rasterio.open(files["depth"]) as found:
        assert found.crs.to_epsg() == 32632 and found.transform == place and found.shape == (50, 70)
        assert found.nodata == 0  # of depth; what a GIS leaves out


def test_a_large_picture_says_now_and_then_how_far_it_is(model, tmp_path, monkeypatch):
    file, lines = tiff(tmp_path / "large.tif", picture(110, 70)), []
    predict_streamed(model, file, tmp_path / "m", None, Tiling(tile=32), lines.append)
    assert len(lines) == 1  # it took no time
    monkeypatch.setattr("garnish.tiles.streaming._QUIET", 0)
    predict_streamed(model, file, tmp_path / "m", None, Tiling(tile=32), lines.append)
    rows = [
        int(re.fullmatch(rf"{re.escape(str(file))}: (\d+) of 110 rows, \d+:\d\d left", line)[1]) for line in lines[2:]
    ]
    assert rows and rows == sorted(set(rows)) and rows[0] > 0 and rows[-1] < 110


def test_what_fails_half_way_leaves_no_file(model, tmp_path, monkeypatch):
    file = tiff(tmp_path / "large.tif", picture(110, 150))
    calls = []

    def fails(self, *given, **options):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return run(self, *given, **options)

    run = type(model).forward
    monkeypatch.setattr(type(model), "forward", fails)
    with pytest.raises(KeyboardInterrupt):
        predict_streamed(model, file, tmp_path / "maps", None, Tiling(tile=64, overlap=16), lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["large.tif"]


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    model.save(folder)
    return folder


def test_the_command_takes_tiles_overlap_and_flip(model, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("garnish.commands.words.load_bundles", lambda *given: model)
    file = tmp_path / "p.png"
    Image.fromarray(picture(60, 90)).save(file)
    words = ["predict", str(bundle), str(file), "--out", str(tmp_path / "maps")]
    assert main([*words, "--tile", "32", "--overlap", "8", "--flip"]) == 0
    assert f"{file}: 90x60 in 12 windows of 32, overlap 8\n" in capsys.readouterr().err
    expected = model.predict(file, tile=32, overlap=8, flip=True)["seg"]
    assert (np.asarray(Image.open(tmp_path / "maps" / "p_seg.png")) == expected.numpy()).all()
    for more, says in (
        (["--tile", "some"], "'some' is no side in pixels, auto or none"),
        (["--tile", "32", "--overlap", "32"], "none would move on"),
        (["--tile", "none", "--overlap", "3"], "of no windows"),
        (["--tile", "3"], "tile"),
    ):
        assert main([*words, *more]) == 2
        assert says in capsys.readouterr().err

    # larger than is held: streamed, and never over a picture that is to be read
    monkeypatch.setattr("garnish.tiles.streaming.HELD_PIXELS", 5000)
    assert main([*words, "--tile", "32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        str(file): [str(tmp_path / "maps" / f"p_{task}.tif") for task in model.tasks]
    }
    tiff(tmp_path / "maps" / "q_seg.tif", picture(32, 48))
    Image.fromarray(picture(80, 90)).save(tmp_path / "q.png")
    given = [str(tmp_path / "q.png"), str(tmp_path / "maps" / "q_seg.tif")]
    assert main(["predict", str(bundle), *given, "--out", str(tmp_path / "maps"), "--tile", "32"]) == 2
    assert "q_seg.tif; choose another folder" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "whole"), "--tile", "none"]) == 0
    assert (tmp_path / "whole" / "p_sheet.png").is_file()


def test_the_runtime_command_streams_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "graph").mkdir()
    folder = made.merged(tmp_path / "graph")
    file = tiff(tmp_path / "large.tif", picture(110, 150))
    monkeypatch.setattr("garnish.tiles.streaming.HELD_PIXELS", 5000)
    words = [str(folder), str(file), "--out", str(tmp_path / "maps"), "--threads", "1"]
    assert runtime_main([*words, "--tile", "64", "--overlap", "16", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)[str(file)]
    held = Session(folder, threads=1).predict(file, tile=64, overlap=16)
    for task, path in zip(made.DECODINGS, files, strict=True):
        assert (tifffile.imread(path) == made.DECODINGS[task].stored(held[task])).all()
    assert runtime_main([*words, "--tile", "64", "--write", "overlays", "--coco"]) == 0  # which are not written so
    told = f"{file}: is too large to be held, so its maps alone are written, without overlays, coco; run it with --tile"
    assert told in capsys.readouterr().err and len(list((tmp_path / "maps").iterdir())) == len(files)
    (tmp_path / "maps" / "other_seg.tif").mkdir()  # cannot be replaced by a file, which ends it as a full disk does
    other = tiff(tmp_path / "other.tif", picture(110, 150))
    assert runtime_main([words[0], str(other), *words[1:], "--tile", "64"]) == 2
    assert "other_seg.tif cannot be written" in capsys.readouterr().err
    assert runtime_main([*words, "--tile", "64", "--overlap", "64"]) == 2
    assert "none would move on" in capsys.readouterr().err


def test_a_size_and_windows_go_together(model):
    """The picture is resized, its windows are run, and outputs come back to its own size, as of a whole pass."""
    pixels = picture(90, 130)
    whole = model.predict(pixels, size=(45, 65), tile=None)
    assert all(torch.equal(model.predict(pixels, size=(45, 65), tile=80)[task], whole[task]) for task in model.tasks)
    cut = model.predict(pixels, size=(45, 65), tile=32)
    flipped = model.predict(pixels, size=(45, 65), flip=True)
    for task in model.tasks:
        assert cut[task].shape == flipped[task].shape == whole[task].shape


def test_windows_of_other_bands_are_read_as_the_whole_picture_is(tmp_path):
    bands = Bands(names=("near infrared", "green", "red", "blue"), nodata=7)
    counted = BandStatistics(
        mean=(0.5,) * 4, std=(0.2,) * 4, minimum=(0.0,) * 4, maximum=(1.0,) * 4, missing=(0.1,) * 4
    )
    many = gn.adapt(tiny.backbone("mit"), gn.BitFit(), {"depth": gn.Depth()}, bands=bands, statistics=counted).eval()
    tiny.randomise_own(many)
    stored = np.random.default_rng(3).integers(0, 2**16, (80, 110, 4)).astype(np.uint16)
    stored[5:20, 30:50, 0] = 7
    file = tmp_path / "many.tif"
    tifffile.imwrite(file, stored, tile=(32, 48), photometric="minisblack", planarconfig="contig")
    held = many.predict(stored, tile=64, overlap=16)["depth"].numpy()
    assert held.shape == (80, 110) and np.isfinite(held).all()
    files = predict_streamed(many, file, tmp_path / "m", None, Tiling(tile=64, overlap=16), lambda line: None)
    assert (tifffile.imread(files["depth"]) == many.tasks["depth"].decoding.stored(held)).all()
