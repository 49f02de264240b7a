"""The engine of an exported folder: outputs are NumPy's of the same weights, whatever shares a pass."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exported_folders import DECODINGS, add_bundle, bundle_tensors, merged, raw_of, with_inputs
from garnish.decodings.classes import Classes
from garnish.decodings.probabilities import Probabilities
from garnish.errors import BundleError, DataError, GarnishError, OptionError
from garnish.pictures.bands import Bands
from garnish.runtime.session import Session
from garnish.serving.asked import Asking, Ticket
from garnish.serving.batcher import Batcher
from garnish.serving.engine import Row
from garnish.serving.graph_engine import GraphEngine
from garnish.serving.service import Service
from test_service import Store

SEG, EDGES = Classes(names=("a", "b", "c", "d")), Probabilities()
BUNDLES = {"street": (SEG, 2), "cracks": (EDGES, 3), "fields": (SEG, 1)}


def pictures(count: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, height, width)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with_inputs(tmp_path / "exported")
    for seed, (name, (decoding, rank)) in enumerate(BUNDLES.items()):
        add_bundle(tmp_path / "exported", name, f"t{seed}", decoding, bundle_tensors(seed, rank, decoding))
    return tmp_path / "exported"


def test_rows_of_many_bundles_are_as_alone(folder):
    engine = GraphEngine(folder, threads=1)
    assert engine.bundles == ("cracks", "fields", "street") and engine.trunk["name"] == "by_hand"
    loaded = {name: engine.load(name, folder) for name in BUNDLES}
    images = pictures(5)
    wants = [("street",), ("cracks",), ("street", "fields"), ("fields",), ("street",)]
    rows = [
        Row(image, tuple((loaded[n], tuple(loaded[n].decodings)) for n in names))
        for image, names in zip(images, wants, strict=True)
    ]
    for row, names, image, found in zip(rows, wants, images, engine.run(rows), strict=True):
        (alone,) = engine.run([row])
        assert isinstance(found, dict) and isinstance(alone, dict)
        seeds = {name: list(BUNDLES).index(name) for name in names}
        assert list(found) == [(name, f"t{seed}") for name, seed in seeds.items()]
        for name, seed in seeds.items():
            decoding, rank = BUNDLES[name]
            want = raw_of(bundle_tensors(seed, rank, decoding), image[None])[0]
            for one in (found, alone):
                assert np.abs(one[name, f"t{seed}"] - want).max() <= 1e-5 * np.abs(want).max()


def test_rows_of_one_bundle_share_a_run(folder, monkeypatch):
    engine, counts = GraphEngine(folder, threads=1), []
    loaded = {name: engine.load(name, folder) for name in BUNDLES}
    run = Session.outputs_of
    monkeypatch.setattr(
        Session, "outputs_of", lambda self, b, images, t: counts.append(len(images)) or run(self, b, images, t)
    )
    wants = ["street", "cracks", "street", "street"]
    engine.run(
        [
            Row(image, ((loaded[n], ("t0" if n == "street" else "t1",)),))
            for n, image in zip(wants, pictures(4), strict=True)
        ]
    )
    assert sorted(counts) == [1, 3]


def test_a_merged_graph_has_any_name(tmp_path):
    engine = GraphEngine(merged(tmp_path / "exported"), threads=1)
    assert engine.bundles == ()
    loaded = engine.load("whatever", tmp_path / "exported")
    assert dict(loaded.decodings) == DECODINGS and loaded.nbytes == 0
    images = pictures(3, 9, 12)
    rows = [
        Row(image, ((loaded, tasks),))
        for image, tasks in zip(images, (("seg",), ("depth", "edges"), ("seg",)), strict=True)
    ]
    want = Session(tmp_path / "exported").outputs(images)
    for number, (row, found) in enumerate(zip(rows, engine.run(rows), strict=True)):
        assert isinstance(found, dict) and list(found) == [("whatever", task) for task in row.asked[0][1]]
        for (_, task), out in found.items():
            assert np.allclose(out, want[task][number], rtol=1e-5, atol=1e-6)


def test_what_is_loaded_stays_whole_after_its_name_stands_for_another(folder):
    engine = GraphEngine(folder, threads=1)
    former = engine.load("street", folder)
    row = Row(pictures(1)[0], ((former, ("t0",)),))
    (before,) = engine.run([row])
    assert former.nbytes == (folder / "street.onnx_adapter").stat().st_size
    engine.unload(former)
    (folder / "street.onnx_adapter").unlink()
    add_bundle(folder, "street", "t9", SEG, bundle_tensors(9, 2, SEG))
    newer = engine.load("street", folder)
    (after,) = engine.run([row])
    assert isinstance(before, dict) and isinstance(after, dict)
    assert (before["street", "t0"] == after["street", "t0"]).all()
    assert list(newer.decodings) == ["t9"] and newer.sha256 != former.sha256


def test_strangers_and_damage_are_refused(folder, tmp_path):
    engine = GraphEngine(folder, threads=1)
    for name, where, told in (
        ("street", tmp_path, "takes the bundles beside its graph alone"),
        ("stret", folder, "no bundle 'stret'; did you mean 'street'?"),
        ("../street", folder, "no bundle"),
    ):
        with pytest.raises(BundleError) as refused:
            engine.load(name, where)
        assert told in str(refused.value) and "\n" not in str(refused.value)
    (folder / "cracks.onnx_adapter").write_bytes(b"x")
    with pytest.raises(BundleError, match="SHA-256"):
        engine.load("cracks", folder)
    with pytest.raises(BundleError, match="is not an exported folder"):
        GraphEngine(tmp_path / "nowhere")


def test_bands_as_files_hold_them_are_not_served(tmp_path):
    bands = {"names": ["red", "green", "nir"], "range": [0, 10000]}
    image = {"dtype": "uint8", "least": 1, "bands": Bands.read(bands, "", OptionError).facts()}
    with pytest.raises(OptionError, match="--input float"):
        GraphEngine(merged(tmp_path / "exported", image=image, format=2))


def test_what_is_not_finite_is_one_rows_outcome(folder):
    tensors = bundle_tensors(5, 1, SEG)
    tensors["head_0"] *= np.float32(3e37)
    add_bundle(folder, "large", "t", SEG, tensors)
    engine = GraphEngine(folder, threads=1)
    large, street = engine.load("large", folder), engine.load("street", folder)
    images = pictures(2)
    found = engine.run([Row(images[0], ((large, ("t",)),)), Row(images[1], ((street, ("t0",)),))])
    assert isinstance(found[0], GarnishError) and "'t' of bundle 'large' is not finite" in str(found[0])
    assert isinstance(found[1], dict)


def test_pictures_smaller_than_the_graph_takes(tmp_path):
    engine = GraphEngine(merged(tmp_path / "exported", image={"dtype": "uint8", "least": 8}), threads=1)
    loaded = engine.load("one", tmp_path / "exported")
    rows = [Row(image, ((loaded, ("seg",)),)) for image in pictures(2)]
    with pytest.raises(DataError, match="smaller than the 8 pixels"):  # each row alone, as the batcher runs them then
        engine.run(rows)


def test_the_service_over_it_is_the_sessions_predict(folder):
    engine = GraphEngine(folder, threads=1)
    store = Store({name: engine.load(name, folder) for name in BUNDLES})
    batcher = Batcher(engine, batch=3)
    held = io.BytesIO()
    Image.fromarray(pictures(1, 150, 131)[0].transpose(1, 2, 0)).save(held, "PNG")
    (folder.parent / "picture.png").write_bytes(held.getvalue())
    for tile in (None, 64):
        service = Service(engine, store, batcher, tile=tile)
        answer = service.predict(held.getvalue(), Asking(("street", "cracks")), Ticket.within(60))
        for name, found in answer.predictions.items():
            want = Session(folder).predict(folder.parent / "picture.png", name, tile=tile)
            for task, expected in want.maps.items():
                assert found[task].dtype == expected.dtype
                assert np.allclose(found[task], expected, rtol=1e-5, atol=1e-6)
    batcher.close()
