"""The server's page without a browser: its files, and its modules in node against NumPy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from garnish.decodings.classes import Classes
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.registry import describe
from garnish.serving.page_files import page_files
from page_runs import written_modules

DRIVER = Path(__file__).with_name("serving_page_in_node.mjs")
FOUND = Path(page_files.__code__.co_filename).with_name("page")


def test_every_file_is_served_and_short():
    files = page_files()
    assert {file.name for file in FOUND.iterdir()} <= set(files)
    for name, (data, kind) in files.items():
        assert len(data.decode().splitlines()) <= 300, name
        assert kind.split(";")[0] == {
            "html": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json"
        }[name.rpartition(".")[2]]  # fmt: skip


def test_it_asks_for_its_own_files_alone():
    files = {name: data.decode() for name, (data, _) in page_files().items()}
    for name, text in files.items():
        assert not re.search(r"https?://(?!127|localhost)", text), name
        assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|new Function)\b", text), (
            name
        )
        for target in re.findall(r'(?:from|import) "\./([^"]+)"', text):
            assert target in files, f"{name} imports {target}"
    html = files["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)  # which the policy would block
    for target in re.findall(r'(?:src|href)="(?!data:)([^"]+)"', html):
        assert target in files
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    ids = set(re.findall(r'\sid="([^"]+)"', html))
    for name in ("serving.js", "looking.js"):
        assert set(re.findall(r'\bat\("([^"]+)"\)', files[name])) <= ids, name
    assert set(re.findall(r'(?:for|aria-describedby)="([^"]+)"', html)) <= ids


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder = written_modules(tmp_path_factory.mktemp("page"))
    for name, (data, _) in page_files().items():
        (folder / name).write_bytes(data)
    return folder


def in_node(modules: Path, job: Path, **told):
    (job / "job.json").write_text(json.dumps(told))
    done = subprocess.run(
        [str(shutil.which("node")), str(DRIVER), str(modules), str(job)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads((job / "answer.json").read_text())


ARRAYS = {
    "a/seg": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "a/depth": np.linspace(0.1, 9, 12, dtype=np.float32).reshape(3, 4),
    "ć/normals": np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32),
    "answer.json": np.frombuffer(b'{"a": 1}', np.uint8),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_they_were_saved(modules, tmp_path, save):
    save(tmp_path / "answer.npz", **ARRAYS)
    found = in_node(modules, tmp_path, what="npz")["found"]
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name]["kind"] == {"u": "Uint8Array", "f": "Float32Array"}[array.dtype.kind]
        np.testing.assert_array_equal(np.array(found[name]["values"], array.dtype).reshape(found[name]["shape"]), array)


def test_damaged_answers_are_one_line(modules, tmp_path):
    np.savez(tmp_path / "whole.npz", **ARRAYS)
    whole = (tmp_path / "whole.npz").read_bytes()
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    np.savez(tmp_path / "columns.npz", a=np.asfortranarray(ARRAYS["a/depth"]))
    damaged = {
        "no zip": b"<html>", "empty": b"", "cut": whole[: len(whole) // 2], "front": whole[200:],
        "objects": (tmp_path / "objects.npz").read_bytes(), "columns": (tmp_path / "columns.npz").read_bytes(),
    }  # fmt: skip
    for name, data in damaged.items():
        (tmp_path / "answer.npz").write_bytes(data)
        answer = in_node(modules, tmp_path, what="npz")
        assert re.fullmatch(r"the server's answer is damaged \(.*\); ask again", answer.get("error", "")), (
            name,
            answer,
        )


def a_map(decoding, values: np.ndarray, **more) -> dict:
    told = describe(decoding) if not isinstance(decoding, dict) else decoding
    pixels = values.shape[-2] * values.shape[-1]
    return {
        "name": told["name"],
        "options": told["options"],
        "values": values.ravel().tolist(),
        "pixels": pixels,
        **more,
    }


SEG = Classes(names=("road", "sky"))
UNKNOWN = {"name": "Others", "options": {}}
DIRECTIONS, SHARES = {"name": "Directions", "options": {}}, {"name": "Probabilities", "options": {"dark": True}}


def test_values_are_told_with_their_units(modules, tmp_path):
    normals = np.array([[0, 0, -1], [0.6, 0, -0.8], [0, 0, 0]], np.float32).T.reshape(3, 1, 3)
    maps = [
        a_map(SEG, np.array([[0, 1, 255]]), confidence=[0.5, 0.987, 0.2]),
        a_map(SEG, np.array([[0, 1]])),
        a_map(SoftplusDepth(max_metres=10.0), np.array([[4.31234, 10, 0]], np.float32)),
        a_map({"name": "UnitlessDepth", "options": {"larger": "nearer"}}, np.array([[0.123456, 12345]], np.float32)),
        a_map(DIRECTIONS, normals),
        a_map(SHARES, np.array([[0.25, 1]], np.float32)),
        a_map(UNKNOWN, np.array([[[1.5]], [[2.5]]], np.float32)),
    ]
    assert in_node(modules, tmp_path, what="readings", maps=maps)["found"] == [
        ["road 50.0 %", "sky 98.7 %", "nothing"],
        ["road", "sky"],
        ["4.312 m", "10.000 m", "nothing"],
        ["0.1235 (no unit, larger is nearer)", "12345 (no unit, larger is nearer)"],
        ["0.0° from the camera · 0.00 0.00 -1.00", "36.9° from the camera · 0.60 0.00 -0.80", "nothing"],
        ["0.250", "1.000"],
        ["1.500, 2.500"],
    ]


def test_differences_are_those_of_numpy(modules, tmp_path):
    draw = np.random.default_rng(1)
    ids, other = draw.integers(0, 2, (2, 5, 7))
    depths = draw.uniform(0.5, 9, (2, 5, 7)).astype(np.float32)
    vectors = draw.normal(size=(2, 3, 5, 7)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = SoftplusDepth(max_metres=10.0)
    turned = Classes(names=("sky", "road"))  # the same names by other ids
    pairs = [
        (a_map(SEG, ids), a_map(turned, other)),
        (a_map(near, depths[0]), a_map(near, depths[1])),
        (a_map(DIRECTIONS, vectors[0]), a_map(DIRECTIONS, vectors[1])),
        (a_map(SEG, ids), a_map(near, depths[0])),
        (a_map(near, depths[0]), a_map(near, depths[1, :2])),
    ]
    classes, metres, angles, kinds, sizes = in_node(modules, tmp_path, what="differences", pairs=pairs)["found"]
    differ = ids != 1 - other
    assert classes["share"] == pytest.approx(differ.mean())
    assert [text != "same" for text in classes["readings"]] == differ.ravel().tolist()
    assert set(classes["readings"]) == {"same", "road → sky", "sky → road"}
    gaps = np.abs(depths[0] - depths[1]).ravel()
    np.testing.assert_allclose([float(text.removesuffix(" m")) for text in metres["readings"]], gaps, atol=6e-4)
    assert metres["ends"] == ["0.000 m", f"{gaps.max():.3f} m"]
    apart = np.degrees(np.arccos((vectors[0].astype(np.float64) * vectors[1]).sum(0))).ravel()
    np.testing.assert_allclose([float(text.removesuffix("°")) for text in angles["readings"]], apart, atol=0.06)
    assert kinds["why"] == "the two maps are of different kinds" and sizes["why"] == "the two maps have different sizes"


def test_the_camera_keeps_places_and_stays_on_the_picture(modules, tmp_path):
    steps = [
        ("zoomBy", 4, {"x": 30, "y": 20}), ("moveBy", -1000, 1000), ("zoomBy", 1000), ("point", 79.9, -5), ("fit",),
        ("step", 1, 0), ("zoomBy", 0.1), ("zoomBy", 8, {"x": 0, "y": 0}), ("point", 60, 55, True),
    ]  # fmt: skip
    seen = in_node(modules, tmp_path, what="camera", size=[80, 60], steps=steps)["found"]
    first = seen[0]
    assert first["zoom"] == 4 and (first["width"], first["height"]) == (20, 15)
    assert ((30 - first["left"]) / 20, (20 - first["top"]) / 15) == pytest.approx((30 / 80, 20 / 60))
    assert (seen[1]["left"], seen[1]["top"]) == (0, 45)
    assert seen[2]["zoom"] == 7.5  # eight pixels of the shorter side
    assert seen[3]["cursor"] == {"x": 79, "y": 0}
    assert seen[4]["zoom"] == 1 and seen[5]["cursor"] == {"x": 79, "y": 0} and seen[6]["zoom"] == 1
    last = seen[-1]
    assert last["cursor"] == {"x": 60, "y": 55} and last["left"] <= 60 < last["left"] + last["width"]
    for one in seen:
        assert 0 <= one["left"] <= 80 - one["width"] + 1e-9 and 0 <= one["top"] <= 60 - one["height"] + 1e-9
