"""Exports that end half way: what was there before is whole, and the next export goes on."""

from __future__ import annotations

import numpy as np
import pytest

import exported_folders as made
import exports
import garnish as gn
from garnish.exporting import export
from garnish.files import atomic
from garnish.runtime.session import Session

SEG = made.DECODINGS["seg"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A graph with one bundle, to which an export adds another that nothing has to be traced for."""
    found = made.with_inputs(tmp_path / "out")
    made.add_bundle(found, "one", "seg", SEG, made.bundle_tensors(0, 2, SEG))
    made.reseal(found)
    other = made.with_inputs(tmp_path / "other")
    made.add_bundle(other, "model", "seg", SEG, made.bundle_tensors(1, 3, SEG))
    files = {name: (other / name).read_bytes() for name in ("model.json", "model.onnx_adapter")}
    monkeypatch.setattr(export, "fed_files", lambda _, there, *__: (files, there.facts, {}))
    return found


@pytest.mark.parametrize("where", ["_put_away", "_sync", "_write"])
def test_a_kill_under_way_leaves_a_graph_with_its_bundles(folder, monkeypatch, where):
    """The folder is looked at as a kill leaves it, before anything is tidied up."""
    model = exports.model("cnn", gn.LoRA(rank=2), {"seg": gn.LinearHead()})
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 7), dtype=np.uint8)
    want = Session(folder).outputs(images, "one")["seg"]
    seen = []

    def looked(*_, **__):
        found = Session(folder)
        seen.append(found.bundles)
        np.testing.assert_array_equal(found.outputs(images, "one")["seg"], want)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(atomic, where, looked)
        gn.export(model, folder, adapters="inputs")
    assert seen == [("model", "one") if where == "_put_away" else ("one",)]
    gn.export(model, folder, adapters="inputs")
    assert Session(folder).bundles == ("model", "one")
    np.testing.assert_array_equal(Session(folder).outputs(images, "one")["seg"], want)
    assert not [entry.name for entry in folder.parent.iterdir() if entry.name.startswith(".")]
