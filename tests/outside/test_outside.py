"""A method, a decoder and a family of backbones, one file each, that no list of ours knows of, in the same suites."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from garnish import registry
from garnish.data.labels import choosing
from garnish.data.labels.reader import Reader
from garnish.errors import OptionError
from garnish.targets.distances import Distances
from outside.package import ROOT, conformance, installed, run

HERE = Path(__file__).parent
POINTS = {
    "adapters VeRA": "outside.vera:VeRA",
    "heads FPNHead": "outside.fpn:FPNHead",
    "backbones PVTv2": "outside.pvt:PVTv2",
}

THEIRS = """
from garnish.heads.head import Head
class LinearHead(Head):
    def build(self, features, out_channels): ...
class Unfinished(Head): ...
"""

SCRIPT = """
import contextlib, io, json, sys
import torch
import garnish as gn
import tiny
from garnish.cli import main

with contextlib.redirect_stdout(io.StringIO()) as printed:
    assert main(["methods", "--json"]) == 0
listed = json.loads(printed.getvalue())
assert "VeRA" in listed["adapters"] and "FPNHead" in listed["heads"] and "pvt_v2_b0" in listed["backbones"]

# all three in one model, there and back by their names alone
trunk = tiny.backbone("pvt")
assert type(trunk).__module__ == "outside.pvt"
tasks = {"seg": gn.Semantic(classes=5), "depth": gn.Depth(max_metres=10.0)}
model = gn.adapt(trunk, gn.VeRA(rank=4, per_task=True), tasks, gn.FPNHead(channels=8)).eval()
tiny.randomise_own(model)
model.save(sys.argv[1], dtype="float32")
loaded = gn.load(sys.argv[1], backbone=tiny.backbone("pvt"))
x = tiny.pictures()
with torch.no_grad():
    assert all(torch.equal(loaded(x)[task], out) for task, out in model(x).items())

# what is drawn once is stored once: two vectors a layer beside it
names = [n for n in model.owners[0].tensors() if "seg" in n]
shared = [n for n in names if n.startswith("shared.")]
assert len(shared) == 2 and all(n.endswith((".d", ".b")) for n in names if n not in shared), names

# and planned as ours are; where there is nothing for it, in the line that adapting says
words = ["--tasks", "depth=Depth", "--size", "64,64", "--batch-size", "1", "--predictions", "1", "--json"]
for name in ("pvt_v2_b0", "test_efficientnet"):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
        assert main(["plan", name, *words, "--methods", "Frozen,VeRA", "--head", "FPNHead"]) == 0
    found = json.loads(printed.getvalue())
    assert any("VeRA rank=64" in row["name"] for row in found["fits"]) == (name == "pvt_v2_b0"), found
assert set(found["refused"].values()) == {gn.VeRA().fits(tiny.bare_trunk("cnn"))}, found["refused"]
print("all done")
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> dict[str, str]:
    return installed(tmp_path_factory.mktemp("site"), POINTS)


def test_the_suites_hold_them_to_the_same(outside):
    # one family for the method and the head, one method for the family; -m slow adds the others
    passed = conformance(outside, "(VeRA and dinov2) or (FPNHead and dinov2) or (pvt and LoRA) or page")
    for name, least in {"VeRA": 12, "FPNHead": 5, "pvt": 10}.items():
        assert sum(name in test for test in passed) >= least, (name, passed)


def test_they_work_together_and_come_back_from_a_bundle(outside, tmp_path):
    words = ("-W", "error", "-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning")
    assert "all done" in run(outside, *words, "-c", SCRIPT, str(tmp_path / "bundle"))


OF_TRANSFORMERS = """
from garnish.backbones.transformers_names import transformers_model
found = transformers_model({"model_type": "pvt_v2"}, "config.json")
assert found.__module__ == "outside.pvt_of_transformers", found
assert found.architecture({"hidden_sizes": [32, 64, 160, 256]}, "config.json") == ("pvt_v2_b0", {})
print("found")
"""


def test_an_architecture_of_transformers_is_found(tmp_path):
    points = {**POINTS, "transformers PvtV2Model": "outside.pvt_of_transformers:PvtV2Model"}
    assert "found" in run(installed(tmp_path, points), "-c", OF_TRANSFORMERS)


@pytest.mark.parametrize(
    ("point", "where", "said"),
    [
        ("adapters Vera", "outside.vera:VeRA", "'Vera' of group garnish.adapters is the class VeRA; call it so"),
        ("adapters VeRA", "outside.vera:VeRAAdapter", "is not a Method that can be made; fix its package"),
        ("heads VeRA", "outside.vera:VeRA", "is not a Head that can be made; fix its package"),
        ("heads Unfinished", "theirs:Unfinished", "is not a Head that can be made; fix its package"),
        ("heads Away", "gone:Away", "cannot be loaded (ModuleNotFoundError: No module named 'gone'); fix or uninstall"),
        ("heads Away", "theirs:Away", "cannot be loaded (AttributeError: module 'theirs' has no attribute 'Away')"),
        ("heads LinearHead", "theirs:LinearHead", "theirs, but garnish.heads.linear has that name; rename one of them"),
    ],
)
def test_an_entry_point_that_misleads_is_refused(point, where, said, tmp_path, monkeypatch):
    installed(tmp_path, {point: where})
    (tmp_path / "theirs.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    with pytest.raises(OptionError, match=re.escape(said)) as caught:
        registry.classes.__wrapped__(point.split()[0])
    assert "\n" not in str(caught.value) and repr(point.split()[1]) in str(caught.value)


@pytest.mark.parametrize("lacks", ["kind", "target"])
def test_a_reader_that_lacks_what_it_is_chosen_by_is_named(lacks, monkeypatch):
    given = {"kind": "unfinished", "target": Distances}
    del given[lacks]
    monkeypatch.setattr(choosing, "classes", lambda _: {"Unfinished": type("Unfinished", (Reader,), given)})
    with pytest.raises(OptionError, match=rf"^reader Unfinished of .*: '{lacks}' is not given; name it in the class$"):
        choosing.readers()


def test_nothing_of_them_is_anywhere_else():
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    for path in files:
        if HERE not in path.parents:
            assert not re.search("VeRA|FPNHead|PVTv2|pvt_v2", path.read_text("utf-8")), path


def test_the_method_is_short():
    assert len((HERE / "vera.py").read_text("utf-8").splitlines()) <= 80


@pytest.mark.slow
def test_the_whole_suites_hold_them_to_the_same(outside):
    passed = conformance(outside, "VeRA or FPNHead or pvt or PVTv2", "-m", "slow or not slow")
    assert len(passed) > 300
