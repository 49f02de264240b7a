"""``Prediction``: what people do with the maps of one picture, and what is in the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import garnish as gn
import tiny
from garnish.decodings.classes import Classes
from garnish.decodings.directions import Directions
from garnish.decodings.prediction import Prediction
from garnish.decodings.probabilities import Probabilities
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.drawing.map_sheet import MapLegend, map_sheet
from garnish.errors import OptionError
from garnish.files.label_files import read_array
from garnish.pictures.raster import Georeference

BY = {
    "seg": Classes(names=("background", "road", "car")),
    "depth": SoftplusDepth(max_metres=20.0),
    "normals": Directions(),
    "edges": Probabilities(dark=True),
}


def made(**changes) -> Prediction:
    draw = np.random.default_rng(0)
    ids = np.zeros((12, 20), np.uint8)
    ids[3:9, 4:9], ids[5, 6], ids[0, 0] = 1, 0, 255
    maps = {
        "seg": ids,
        "depth": np.where(ids == 1, 5, 10).astype(np.float32),
        "normals": np.broadcast_to(np.array([0, 0, 1], np.float32)[:, None, None], (3, 12, 20)),
        "edges": np.where(ids == 1, 1, 0.25).astype(np.float32),
    }
    picture = draw.integers(0, 256, (12, 20, 3), dtype=np.uint8)
    return Prediction(picture, maps, BY, "street", **changes)


def test_its_text_is_short_and_its_page_holds_all_that_it_shows():
    assert repr(made()) == "Prediction('street', 20x12: seg, depth, normals, edges)"
    page = made()._repr_html_()
    assert len(page) < 100_000 and "Prediction(&#x27;street&#x27;" in page
    assert re.findall(r'(?:src|href)="(.{0,23})', page) == ["data:image/jpeg;base64,"]  # nothing is fetched


def test_it_names_its_tasks_and_gives_its_maps_as_a_mapping_does():
    maps = made()
    assert list(maps) == list(maps.keys()) == ["seg", "depth", "normals", "edges"] and len(maps) == 4
    assert "seg" in maps and "dept" not in maps and 0 not in maps
    assert [task for task in maps if maps[task] is not maps.maps[task]] == []
    assert dict(maps) == dict(maps.items()) == maps.maps


def test_areas_are_counts_of_pixels():
    found = made().areas("seg")
    assert list(found) == ["background", "road", "car"]
    assert {name: area["pixels"] for name, area in found.items()} == {"background": 210, "road": 29, "car": 0}
    assert found["road"]["share"] == 29 / 240
    assert made().areas("edges") == {"yes": {"pixels": 29, "share": 29 / 240}}
    for task, says in (("depth", "task 'depth' has no classes"), ("dept", "no map of task 'dept'")):
        with pytest.raises(OptionError, match=says):
            made().areas(task)


def test_an_overlay_is_the_mean_with_the_picture_by_opacity():
    one = made()
    colours = one.painted()
    whole = one.overlay("seg", 1)
    labelled = one.maps["seg"] != 255
    assert (whole[labelled] == colours["seg"][labelled]).all() and (whole[0, 0] == one.picture[0, 0]).all()
    assert all((one.overlay(task, 0) == one.picture).all() for task in BY)
    half = one.overlay("depth", 0.5).astype(float)
    assert np.abs(half - (one.picture.astype(float) + colours["depth"]) / 2).max() <= 0.5
    edges = one.overlay("edges", 1)
    assert (edges[one.maps["edges"] == 1] == (255, 64, 32)).all()  # what is sure hides all, what is not a quarter
    rest = one.maps["edges"] != 1
    assert np.abs(edges[rest] - (0.75 * one.picture[rest] + 0.25 * np.array((255, 64, 32)))).max() <= 0.51
    with pytest.raises(OptionError, match="overlay: opacity: "):
        one.overlay("seg", 1.5)


def test_probabilities_are_kept_if_asked_for():
    shares = np.full((3, 12, 20), 1 / 3, np.float32)
    assert made(values={"seg": shares}).probabilities("seg") is shares
    assert (made().probabilities("edges") == made().maps["edges"][None]).all()
    with pytest.raises(OptionError, match="task 'seg' were not kept; predict with probabilities=True"):
        made().probabilities("seg")
    with pytest.raises(OptionError, match="task 'depth' has none"):
        made().probabilities("depth")


def test_a_models_probabilities_are_the_softmax_of_its_outputs():
    tasks = {"seg": gn.Semantic(classes=4), "fg": gn.Saliency()}
    model = gn.adapt(tiny.backbone("mit"), gn.BitFit(), tasks).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    found = model.predict(pixels, probabilities=True)
    with torch.inference_mode():
        raw = model(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    wanted = raw["seg"][0].double().softmax(0).numpy()
    np.testing.assert_allclose(found.probabilities("seg"), wanted, atol=1e-6)
    assert (found.probabilities("seg").argmax(0) == found.numpy()["seg"]).all()
    np.testing.assert_allclose(found.probabilities("fg"), raw["fg"][0].double().sigmoid().numpy(), atol=1e-6)
    windows = model.predict(pixels, tile=32, probabilities=True)
    np.testing.assert_allclose(windows.probabilities("seg").sum(0), 1, atol=1e-5)
    assert (windows.probabilities("seg").argmax(0) == windows.numpy()["seg"]).mean() > 0.999
    with pytest.raises(OptionError, match="not kept"):
        model.predict(pixels).probabilities("seg")


def test_a_models_page_names_its_tasks_and_nothing_in_it_is_markup():
    model = gn.adapt(tiny.backbone("mit"), gn.BitFit(), {"seg": gn.Semantic(classes=("<b>", "c"))}).eval()
    page = model._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;" in page and "seg" in page and len(page) < 20_000


def test_files_of_ids_are_right_in_viewers_and_their_numbers_are_the_ids(tmp_path):
    one = made()
    file, *_ = one.write(tmp_path, ["maps"])
    with Image.open(file) as image:
        assert image.mode == "P"
        assert (np.asarray(image) == one.maps["seg"]).all()
        assert (np.asarray(image.convert("RGB")) == one.painted()["seg"]).all()
    assert (read_array(file) == one.maps["seg"]).all()  # as labels of a data set are read
    many = Classes(names=tuple(f"c{k}" for k in range(255)))
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (np.asarray(Image.open(many.write(ids, tmp_path / "all"))) == ids).all()
    two = Classes(names=("a", "b"))  # few colours, and none is packed into fewer bits
    assert (np.asarray(Image.open(two.write(ids, tmp_path / "two"))) == ids).all()


def test_every_kind_of_file(tmp_path):
    shares = np.random.default_rng(1).dirichlet((1, 1, 1), (12, 20)).transpose(2, 0, 1).astype(np.float32)
    one = made(values={"seg": shares}, source=Path("in/street.jpg"))
    files = one.write(tmp_path / "new", ["sheet", "coco", "probabilities", "overlays", "maps"], opacity=1)
    assert [file.name for file in files] == [
        *(f"street_{task}.png" for task in BY),
        *(f"street_{task}_overlay.png" for task in BY),
        "street_seg_probabilities.npz",
        "street_edges_probabilities.npz",
        "street_coco.json",
        "street_sheet.png",
    ]
    assert (np.asarray(Image.open(files[4])) == one.overlay("seg", 1)).all()
    with np.load(files[8], allow_pickle=False) as held:
        assert held["names"].tolist() == ["background", "road", "car"]
        np.testing.assert_allclose(held["probabilities"].astype(np.float32), shares, atol=2.5e-4)
    told = json.loads(files[10].read_text())
    assert told == json.loads(json.dumps(one.to_coco())) and told["images"][0]["file_name"] == "street.jpg"
    assert {c["supercategory"] for c in told["categories"]} == {"seg", "edges"}
    for what, says in ((["map"], "unknown kind of file 'map'; did you mean 'maps'"), ([], "names nothing")):
        with pytest.raises(OptionError, match=says):
            one.write(tmp_path, what)
    with pytest.raises(OptionError, match="task 'depth' has no classes"):
        one.to_coco(["depth"])


def test_maps_of_a_picture_that_lies_on_the_ground_lie_there_too(tmp_path):
    import rasterio

    place = Georeference("EPSG:32632", (0.5, 0.0, 500000.0, 0.0, -0.5, 5600000.0))
    files = made(place=place).write(tmp_path, ["maps"])
    assert [file.name for file in files[4:]] == [f"street_{task}.tif" for task in BY]
    for png, tif in zip(files[:4], files[4:], strict=True):
        with rasterio.open(tif) as found:
            assert found.crs.to_epsg() == 32632 and tuple(found.transform)[:6] == place.transform
            numbers = found.read()
            kind = tif.stem.removeprefix("street_")
            assert found.nodata == {"seg": 255, "depth": 0}.get(kind)  # what a GIS leaves out
        assert (np.moveaxis(numbers, 0, -1).squeeze() == read_array(png)).all()
        if png.name == "street_seg.png":
            with rasterio.open(tif) as found:
                assert found.colormap(1)[1][:3] == tuple(made().painted()["seg"][3, 4])


def test_a_sheet_can_be_read_and_has_one_legend_a_task(monkeypatch):
    """Cells of small pictures are enlarged; what a legend lists is what the map holds."""
    drawn: list[str] = []
    from PIL import ImageDraw

    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, at, words, *a, **k: (drawn.append(words), text(self, at, words, *a, **k))[1],
    )
    sheet = made()._sheet()
    assert sheet.width <= 1600 and sheet.width >= 3 * 320
    assert drawn[:5] == ["picture", "seg", "depth", "normals", "edges"]
    assert drawn[5:] == ["seg", "background 88%", "road 12%", "depth", "20 m", "0 m"]
    names = {f"class {k}": (k, k, k) for k in range(150)}
    drawn.clear()
    map_sheet([("a", np.zeros((2000, 10, 3), np.uint8))], {"seg": MapLegend(names)})
    assert "and 126 more" in drawn and len([words for words in drawn if words.startswith("class")]) == 24
