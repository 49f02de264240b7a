"""``garnish export --page``: the page beside a graph, kept and replaced with it, and real graphs in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import exported_folders as made
import exports
import garnish as gn
from garnish.cli import main
from garnish.decodings.classes import Classes
from garnish.errors import DataError, OptionError
from garnish.exporting import export as module
from garnish.files.checksums import SUMS, check_sum
from garnish.page.files import PAGE_FILES, own_files
from garnish.page.onnxruntime_web import FILES
from garnish.runtime import Session
from page_runs import assert_same_maps, picture, predicted, written_page

pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
pytestmark = pytest.mark.export

HEADS = {"seg": gn.LinearHead(), "depth": gn.LinearHead(), "normals": gn.LinearHead()}


@pytest.fixture
def without_npm(monkeypatch):
    """onnxruntime-web is a few bytes, and the graph is made by hand: what is tried is which files are written."""
    asked = []

    def files(package=None):
        asked.append(package)
        return {**own_files(), **{name: name.encode() for name in FILES}}

    graph = made.merged_graph({"seg": Classes(names=tuple("abcde"))})
    monkeypatch.setattr(module, "export_page_files", files)
    monkeypatch.setattr(module, "_made", lambda *_: (graph, 1, {}))
    return asked


@pytest.fixture(scope="module")
def model():
    return exports.model("cnn", gn.Partial(), {"seg": gn.LinearHead()})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return written_page(tmp_path_factory.mktemp("page"))


def check(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()} - {SUMS}
    assert len((folder / SUMS).read_text().splitlines()) == len(names)
    for name in names:
        check_sum(folder / name, (folder / name).read_bytes())


def test_the_page_lies_beside_the_graph_until_it_is_replaced(model, tmp_path, without_npm):
    exported = gn.export(model, tmp_path / "out", page=True)
    assert set(PAGE_FILES) <= set(exported.files) == {file.name for file in (tmp_path / "out").iterdir()}
    check(tmp_path / "out")
    assert Session(tmp_path / "out").predict(picture(33, 41))["seg"].shape == (33, 41)
    gn.export(model, tmp_path / "out")
    assert (tmp_path / "out" / "index.html").is_file() and without_npm == [None]
    check(tmp_path / "out")
    gn.export(model, tmp_path / "out", page="elsewhere.tgz")
    assert without_npm == [None, "elsewhere.tgz"]


def test_what_does_not_go_together_is_refused_before_anything_is_made(model, tmp_path, capsys):
    with pytest.raises(OptionError, match='the page runs ONNX, not to="torch"'):
        gn.export(model, tmp_path / "out", to="torch", page=True)
    with pytest.raises(DataError, match="cannot be read"):
        gn.export(model, tmp_path / "out", page=tmp_path / "missing.tgz")
    words = ["export", "bundle", "--out", str(tmp_path / "out"), "--onnxruntime-web", "a.tgz"]
    assert main(words) == 2
    assert "--onnxruntime-web is the package for --page, which is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["merged", pytest.param("inputs", marks=pytest.mark.slow)])
def test_an_exported_trunk_predicts_in_the_page_what_the_runtime_does(page, tmp_path, form):
    model = exports.model("mit", gn.LoRA(rank=2), HEADS)
    gn.export(model, tmp_path / "out", adapters=form)
    bundle = "model" if form == "inputs" else None
    session = Session(tmp_path / "out")
    assert np.isfinite(session.predict(picture(45, 61), bundle)["depth"]).all()
    predicted(page, tmp_path, tmp_path / "out", picture(45, 61), bundle)
    assert_same_maps(tmp_path, session, picture(45, 61), bundle)
