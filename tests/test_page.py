"""The page of an export, without a browser: its modules in node against Python's decodings and ``garnish.runtime``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exported_folders as made
from garnish import registry
from garnish.decodings.classes import Classes
from garnish.decodings.decoding import Decoding
from garnish.decodings.directions import Directions
from garnish.decodings.probabilities import Probabilities
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.decodings.unitless_depth import UnitlessDepth
from garnish.errors import DataError, MissingExtraError
from garnish.page import onnxruntime_web
from garnish.page.files import PAGE_FILES, export_page_files, own_files
from garnish.registry import describe
from garnish.runtime import Session
from page_runs import assert_same_maps, bytes_of, in_node, picture, predicted, written_modules, written_page

#: of each decoding that the package has, options that differ
DECODINGS: Mapping[str, list[Decoding]] = {
    "Classes": [Classes(names=("a", "Background", "ć")), Classes(names=tuple(f"c{n}" for n in range(255)))],
    "SoftplusDepth": [SoftplusDepth(), SoftplusDepth(max_metres=80.3, min_metres=0.7)],
    "Directions": [Directions()],
    "UnitlessDepth": [UnitlessDepth(larger="nearer"), UnitlessDepth(larger="farther")],
    "Probabilities": [Probabilities(), Probabilities(dark=True, none_colour=(1, 2, 3))],
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return written_page(tmp_path_factory.mktemp("page"))


def raw_of(decoding: Decoding) -> np.ndarray:
    """(C, 61, 83) float32: ordinary numbers, large ones, and ties.

    Tiny ones are left out: 0 lies where two colours of depth meet, and the last digit of logarithms is libraries' own.
    """
    draw = np.random.default_rng(decoding.channels)
    raw = draw.normal(size=(decoding.channels, 61, 83)) * 10.0 ** draw.integers(-3, 4, (61, 83))
    raw[:, 0] = np.round(raw[:, 0])
    raw[:, 1] = 0
    raw[:, 2, :2] = 1e37, -1e37
    return raw.astype(np.float32)


def test_every_decoding_is_asked_for():
    ours = {name for name, cls in registry.classes("decodings").items() if cls.__module__.startswith("garnish.")}
    assert set(DECODINGS) == ours


def test_decodings_are_those_of_python(tmp_path):
    modules = written_modules(tmp_path)
    cases = [decoding for several in DECODINGS.values() for decoding in several]
    raw = [raw_of(decoding) for decoding in cases]
    decoded = [decoding.decode(out) for decoding, out in zip(cases, raw, strict=True)]
    given = [values_to_paint(d, m) for d, m in zip(cases, decoded, strict=True)]
    for n, (out, values) in enumerate(zip(raw, given, strict=True)):
        (tmp_path / f"raw_{n}.bin").write_bytes(out.tobytes())
        (tmp_path / f"map_{n}.bin").write_bytes(np.ascontiguousarray(values).tobytes())
    told = [{**describe(d), "kind": str(m.dtype)} for d, m in zip(cases, decoded, strict=True)]
    answer = in_node(modules, tmp_path, what="decode", cases=told)["answer"]
    for n, decoding in enumerate(cases):
        found = np.fromfile(tmp_path / f"decoded_{n}.bin", decoded[n].dtype).reshape(decoded[n].shape)
        if decoded[n].dtype == np.uint8:
            np.testing.assert_array_equal(found, decoded[n])
        else:
            np.testing.assert_allclose(found, decoded[n], rtol=1e-6, atol=1e-37)
        assert (bytes_of(tmp_path / f"given_{n}.bin", given[n]) == decoding.paint(given[n])).all(), decoding
        off = (bytes_of(tmp_path / f"painted_{n}.bin", decoded[n]) != decoding.paint(decoded[n])).any(-1)
        assert off.sum() <= 2  # of 5063: where the last digit of an exponential turns a rounding
        assert answer[n]["channels"] == decoding.channels
        entries = answer[n]["legend"].get("entries", ()) if isinstance(decoding, Classes) else ()
        assert {e["name"]: tuple(e["colour"]) for e in entries} == decoding.legend()


def values_to_paint(decoding: Decoding, decoded: np.ndarray) -> np.ndarray:
    """A decoded map with what targets hold beside."""
    values = decoded.copy()
    flat = values.reshape(-1)
    if isinstance(decoding, Classes | Probabilities):
        flat[:3] = 255
    elif isinstance(decoding, SoftplusDepth):
        flat[:4] = 0, np.nan, np.inf, decoding.max_metres
    elif isinstance(decoding, UnitlessDepth):
        flat[:3] = np.nan, np.inf, -np.inf
    else:
        values[:, 0, :3] = np.array([0, np.nan, np.inf])
    return values


@pytest.mark.parametrize("size", [(45, 61), (64, 37)])
def test_a_folder_predicts_what_the_runtime_does(page, tmp_path, size):
    folder = made.merged(tmp_path / "exported")
    answer = predicted(page, tmp_path, folder, picture(*size))
    assert answer == {"bundles": [], "tasks": [[task, None] for task in made.DECODINGS]}
    assert_same_maps(tmp_path, Session(folder), picture(*size))


def test_pictures_are_given_as_floats_where_the_graph_takes_them(page, tmp_path):
    graph = made.merged_graph(dtype="float32")
    tasks = made.told_tasks(made.DECODINGS)
    facts = made.facts_of(graph, tasks=tasks, outputs=list(tasks), image={"dtype": "float32", "least": 1})
    folder = made.write_files(tmp_path / "exported", facts, graph)
    predicted(page, tmp_path, folder, picture(33, 47))
    assert_same_maps(tmp_path, Session(folder), picture(33, 47))


def with_bundles(folder: Path) -> Path:
    made.with_inputs(folder)
    for name, (seed, rank, decoding, slot) in {
        "depths": (1, 2, SoftplusDepth(), 0),
        "classes": (2, 3, Classes(names=("a", "b", "c", "d")), 1),
    }.items():
        made.add_bundle(folder, name, "map", decoding, made.bundle_tensors(seed, rank, decoding, slot), slot)
    made.reseal(folder)
    return folder


@pytest.mark.parametrize("bundle", ["depths", "classes"])
def test_adapters_are_given_as_inputs(page, tmp_path, bundle):
    folder = with_bundles(tmp_path / "exported")
    answer = predicted(page, tmp_path, folder, picture(21, 33), bundle)
    assert answer == {"bundles": ["classes", "depths"], "tasks": [["map", None]]}
    assert_same_maps(tmp_path, Session(folder), picture(21, 33), bundle)


def test_a_decoding_that_the_page_lacks_is_told_and_the_others_shown(page, tmp_path):
    folder = made.merged(tmp_path / "exported")
    facts = json.loads((folder / "export.json").read_text())
    facts["tasks"]["depth"]["decoding"] = {"name": "SignedAmount", "options": {}}
    (folder / "export.json").write_text(json.dumps(facts))
    answer = predicted(page, tmp_path, folder, picture(20, 30))
    assert answer["tasks"] == [["seg", None], ["depth", "SignedAmount"], ["normals", None], ["edges", None]]


def changed(folder: Path, **changes: Any) -> None:
    facts = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps({**facts, **changes}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sha256": "0" * 64}, "model.onnx: is not the file of its manifest"),
        ({"format": 2}, "export.json: has format 2, this page reads 1"),
        ({"to": "torch"}, "its graph is of torch"),
        ({"image": {"dtype": "uint8", "least": 64}}, "a picture of 30x20 is smaller than the 64 pixels"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(page, tmp_path, changes, says):
    folder = made.merged(tmp_path / "exported")
    changed(folder, **changes)
    error = predicted(page, tmp_path, folder, picture(20, 30))["error"]
    assert says in error and "\n" not in error


def test_a_damaged_bundle_is_told(page, tmp_path):
    folder = with_bundles(tmp_path / "exported")
    file = folder / "depths.onnx_adapter"
    file.write_bytes(file.read_bytes()[:-9])
    assert "SHA-256 differ" in predicted(page, tmp_path, folder, picture(20, 30), "depths")["error"]
    assert "which bundle? there are classes, depths" in predicted(page, tmp_path, folder, picture(20, 30))["error"]


def test_the_page_asks_for_its_own_files_alone():
    files = own_files()
    text = {name: data.decode() for name, data in files.items()}
    assert set(files) | set(onnxruntime_web.FILES) == set(PAGE_FILES)
    assert not [
        name
        for name, data in text.items()
        if "http://" in data.replace("http://localhost:8000", "") or "https://" in data
    ]
    assert "default-src 'none'" in text["index.html"]


# ---- onnxruntime-web --------------------------------------------------------------------------------------------


def test_another_package_is_refused(tmp_path):
    file = tmp_path / "onnxruntime-web-1.30.0.tgz"
    with pytest.raises(DataError, match=r"cannot be read .*give onnxruntime-web-1.30.0.tgz of npm"):
        export_page_files(file)
    file.write_bytes(b"another")
    with pytest.raises(DataError, match=r"is not onnxruntime-web 1.30.0 of npm's registry \(its SHA512 differs\)"):
        export_page_files(file)


def test_without_npm_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MissingExtraError, match=r"there is no npm; install it, or run 'npm pack onnxruntime-web@1.30.0'"
    ):
        export_page_files()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'no registry' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(MissingExtraError, match=r"npm cannot fetch onnxruntime-web 1.30.0 \(no registry\); check its"):
        export_page_files()
