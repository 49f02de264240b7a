"""Published layouts, read from small trees that follow the descriptions of the sets and not our code."""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage

from garnish import registry
from garnish.backbones.build import backbone
from garnish.cli import main
from garnish.data.check import check
from garnish.data.folder import folder
from garnish.data.joined import join
from garnish.data.layouts.pascal_context import label_edges
from garnish.data.sources import open_data
from garnish.errors import DataError, OptionError
from published_sets import (
    BUILDERS,
    FACTS,
    IDS,
    PARTS,
    PLACES,
    VOID,
    H,
    W,
    ade,
    anno,
    box,
    cityscapes,
    halves,
    nyud,
    pascal,
    picture,
    put,
    thing,
    voc,
)
from test_cli import OPTIONS, write_weights


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture(params=sorted(BUILDERS))
def built(request, tmp_path):
    """(name of a layout, its tree)"""
    return request.param, BUILDERS[request.param](tmp_path / "set")


def test_every_layout_is_tried_here():
    assert set(registry.classes("layouts")) == set(BUILDERS) == set(FACTS)


def test_tasks_and_splits(built):
    name, root = built
    data = {"layout": name, "path": str(root)}
    for split in ("train", "val"):
        found = folder(data, split)
        assert {t: task.channels for t, task in found.tasks.items()} == FACTS[name][1]
        stems = [re.sub(r"^(aachen|lindau)/\1_", "", found.picture_name(k)) for k in range(len(found))]
        assert stems == IDS[split]
        for k in range(len(found)):
            sample = found[k]
            assert sample.size == (H, W) and set(sample.targets) == set(FACTS[name][1])
    assert not check(folder(data, "train")).errors
    again = pickle.loads(pickle.dumps(found))[1]  # as worker processes get it
    assert all(torch.equal(again.targets[task], target) for task, target in sample.targets.items())
    with pytest.raises(DataError, match="no split 'test'"):
        folder(data, "test")


def test_the_published_folder_is_found_in_its_parent(built, tmp_path):
    name, root = built
    parent = tmp_path / "downloads"
    there = parent / FACTS[name][0]
    there.parent.mkdir(parents=True)
    shutil.move(root, there)
    assert len(folder({"layout": name, "path": str(parent)})) == 2


def test_a_published_folder_needs_no_description(built, caplog):
    name, root = built
    with caplog.at_level(logging.INFO):
        found = folder(root, "val")
    assert list(found.tasks) == list(FACTS[name][1]) and len(found) == 2
    assert f"read as {{layout: {name}}}" in caplog.text
    assert [n for n, cls in registry.classes("layouts").items() if cls.recognised(root)] == [name]


def test_a_missing_label_is_named(built):
    name, root = built
    (root / FACTS[name][2]).unlink()
    with pytest.raises(DataError) as error:
        folder({"layout": name, "path": str(root)})
    text = one_line(error)
    assert FACTS[name][2] in text and "not complete" in text and registry.find("layouts", name).origin in text
    assert len(folder({"layout": name, "path": str(root)}, "val")) == 2


def test_a_missing_folder_list_or_picture_is_named(built, tmp_path):
    name, root = built
    with pytest.raises(DataError, match=r"no folder .*/nowhere; correct `path`, or fetch"):
        folder({"layout": name, "path": str(tmp_path / "nowhere")})
    told = sorted(p for p in root.rglob("train.txt") if "Parts" not in p.parts)
    if told:
        (root / "JPEGImages/a_02.jpg").unlink(missing_ok=True)
        (root / "images/a_02.jpg").unlink(missing_ok=True)
        with pytest.raises(DataError) as error:
            folder({"layout": name, "path": str(root)})
        assert re.search(r"train\.txt, line 2: no picture .*a_02\.jpg", one_line(error))
        told[0].unlink()
        with pytest.raises(DataError, match=r"splits\.train: cannot read .*train\.txt"):
            folder({"layout": name, "path": str(root)})
        told[0].write_text("a_01\n../../etc/passwd\n")
        with pytest.raises(DataError, match=r"line 2: '../../etc/passwd' is not a plain relative name"):
            folder({"layout": name, "path": str(root)})
        told[0].write_text("/JPEGImages/a_01.jpg /SegmentationClass/a_01.png\n")
        with pytest.raises(DataError, match=r"line 1: .* is not a plain relative name"):
            folder({"layout": name, "path": str(root)})
    else:
        for path in root.rglob("*a_0*"):
            path.unlink()
        with pytest.raises(DataError) as error:
            folder({"layout": name, "path": str(root)})
        assert "split 'train' is empty" in one_line(error) and "or fetch" in one_line(error)


def test_voc_ids_and_void(tmp_path):
    root = voc(tmp_path)
    seg = folder({"layout": "PascalVOC", "path": str(root)})[0].targets["seg"]
    assert seg.dtype == torch.int64 and seg[0, :3].tolist() == [20, 7, 1]
    assert (seg[1:, : W // 2 - 1] == 0).all() and (seg[:, W // 2 :] == 15).all() and (seg[:, W // 2 - 1] == VOID).all()


def test_voc_augmented(tmp_path):
    root = voc(tmp_path)
    put(root / "SegmentationClassAug/a_01.png", halves(9, 9))  # the official label is the better one
    data = {"layout": "PascalVOC", "path": str(root), "augmented": True}
    found = folder(data)
    assert [found.picture_name(k) for k in range(3)] == ["a_01", "a_02", "c_01"]
    assert found[0].targets["seg"][5, -1] == 15 and found[2].targets["seg"][0, [0, -1]].tolist() == [3, 4]
    assert len(folder(data, "val")) == 2
    (root / "ImageSets/Segmentation/trainaug.txt").unlink()
    with pytest.raises(DataError, match=r"trainaug\.txt"):
        folder(data)


def test_ade_reduces_the_zero_label(tmp_path):
    found = folder({"layout": "ADE20K", "path": str(ade(tmp_path))}, "val")
    seg = found[1].targets["seg"]
    assert seg[0, :2].tolist() == [0, 12] and (seg[1:, : W // 2] == VOID).all() and (seg[:, W // 2 :] == 149).all()
    names = found.tasks["seg"].names
    assert (names[0], names[12], names[149]) == ("wall", "person", "flag")


# cityscapesScripts, helpers/labels.py: (id, train id) of the evaluated labels
CITYSCAPES = dict(
    zip((7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33), range(19), strict=True)
)


def test_cityscapes_maps_34_to_19(tmp_path):
    root = cityscapes(tmp_path)
    seg = folder({"layout": "Cityscapes", "path": str(root)})[0].targets["seg"]
    raw = np.arange(H * W).reshape(H, W) % 34
    want = np.vectorize(lambda k: CITYSCAPES.get(k, VOID))(raw)
    np.testing.assert_array_equal(seg.numpy(), want)
    trained = folder({"layout": "Cityscapes", "path": str(root), "ids": "labelTrainIds"})[0].targets["seg"]
    np.testing.assert_array_equal(trained.numpy(), np.where(raw % 20 == 19, VOID, raw % 20))
    file = next(root.glob("gtFine/train/*/*a_01_gtFine_labelIds.png"))
    put(file, np.full((H, W), 34))
    with pytest.raises(DataError, match="id 34"):
        folder({"layout": "Cityscapes", "path": str(root)})[0]


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("told", [True, False])
def test_nyud(tmp_path, variant, told):
    root = nyud(tmp_path, variant)
    found = folder({"layout": "NYUDMultiTask", "path": str(root)} | ({"variant": variant} if told else {}))
    targets = found[0].targets
    assert targets["seg"][0, :2].tolist() == [0, 5]
    assert (targets["seg"][1:, : W // 2] == VOID).all() and (targets["seg"][:, W // 2 :] == 39).all()
    depth = targets["depth"]
    assert depth.shape == (1, H, W) and depth[0, 0, 0] == 7.25 and (depth[0, 1:, : W // 2] == 2.5).all()
    assert (depth[..., W // 2 :] == 0).all()  # 255 is no depth
    normals = targets["normals"]
    np.testing.assert_allclose(normals[:, 3, 3].numpy(), (0.6, 0, -0.8), atol=1e-6 if variant == "A" else 0.006)
    assert (normals[..., W // 2 :] == 0).all()
    want = np.zeros((1, H, W))
    want[..., W // 2] = 1
    np.testing.assert_array_equal(targets["edges"].numpy(), want)
    assert found.tasks["edges"].positive_weight == (0.95 if variant == "A" else 0.8)
    other = "B" if variant == "A" else "A"
    with pytest.raises(DataError, match=r"no picture .*images/a_01\.(png|jpg)"):
        folder({"layout": "NYUDMultiTask", "path": str(root), "variant": other})


def test_pascal_targets(tmp_path):
    found = folder({"layout": "PascalContextMultiTask", "path": str(pascal(tmp_path))})
    first, second = found[0].targets, found[1].targets
    # VOC's own label, else the one of PASCAL-Context
    assert first["seg"][0, [0, -1]].tolist() == [0, 15] and second["seg"][0, [0, -1]].tolist() == [0, 8]
    want = np.zeros((H, W))
    for name, group in PARTS.items():
        want[box(*PLACES[name])] = group
    np.testing.assert_array_equal(first["parts"].numpy(), want)
    assert (second["parts"] == VOID).all()
    assert found.tasks["parts"].void_if_only_background
    # grey above half of 255
    assert (first["saliency"][..., : W // 2] == 0).all() and (first["saliency"][..., W // 2 :] == 1).all()
    normals = first["normals"]
    known = np.zeros((H, W), bool)
    known[:, : W // 2] = known[H // 2 :] = True
    known[-1] = False
    np.testing.assert_array_equal((normals != 0).any(0).numpy(), known)
    vector = np.array([1, 1 / 255, 1 / 255])  # 2 * 128 / 255 - 1
    np.testing.assert_allclose(normals[:, 0, 0].numpy(), vector / np.linalg.norm(vector), atol=1e-6)
    # one pixel wide, between the three regions: a column, and half a row
    edges = first["edges"][0].numpy()
    assert set(np.unique(edges)) == {0, 1}
    assert (edges[2 : H // 2 - 2].sum(1) == 1).all() and edges[4, W // 2 - 1 : W // 2 + 1].sum() == 1
    assert (edges[:, W // 2 + 2 : -2].sum(0) == 1).all() and edges[:, : W // 2 - 2].sum() == 0
    assert found.tasks["edges"].positive_weight == 0.95
    weights = {name: task.loss_weight for name, task in found.tasks.items()}
    assert weights == {"seg": 1, "parts": 2, "saliency": 5, "normals": 10, "edges": 50}


def test_edges_of_labels_are_thin_and_as_connected_as_the_laplacian():
    rng = np.random.default_rng(3)
    labels = ndimage.zoom(rng.integers(0, 5, (6, 7)), 8, order=0).astype(np.uint16)
    thick = ndimage.convolve(labels.astype(float), [[0, 1, 0], [1, -4, 1], [0, 1, 0]], mode="mirror") != 0
    edges = label_edges(labels)
    eight = np.ones((3, 3))
    assert not (edges & ~thick).any() and ndimage.label(edges, eight)[1] == ndimage.label(thick, eight)[1]
    assert (
        edges.sum() < 0.65 * thick.sum() and not ndimage.binary_erosion(edges, np.ones((2, 2))).sum() > edges.size // 50
    )


def test_a_picture_without_any_object_has_no_parts_and_others_are_refused(tmp_path):
    root = pascal(tmp_path)
    data = {"layout": "PascalContextMultiTask", "path": str(root), "tasks": ["parts"]}
    file = root / "human_parts/a_01.mat"
    put(file, anno([]))
    assert (folder(data)[0].targets["parts"] == VOID).all()
    for wrong, message in (
        (anno([thing(15, box(0, 0), [("wing", box(0, 0))])]), "part 'wing'"),
        (anno([thing(15, box(0, 0), [("head", np.ones((3, 3)))])]), "3x3|(3, 3)"),
        ({"anno": {"imname": "x"}}, "'objects' is missing"),
        ({"anno": np.zeros((2, 2))}, "'anno' is no structure"),
        ({"other": np.zeros((2, 2))}, "no variable 'anno'"),
    ):
        put(file, wrong)
        with pytest.raises(DataError) as error:
            folder(data)[0]
        assert re.search(message, one_line(error)) and (str(file) in str(error.value)), str(error.value)


def test_some_tasks_with_other_options(built):
    name, root = built
    known = list(FACTS[name][1])
    data = {"layout": name, "path": str(root)}
    assert folder(data | {"tasks": {known[-1]: {"weight": 3}}}).tasks[known[-1]].loss_weight == 3
    assert list(folder(data | {"tasks": known[:1]}).tasks) == known[:1]
    for wrong, message in (
        ({"tasks": ["sge"]}, "unknown task 'sge'"),
        ({"tasks": {known[0]: {"wieght": 3}}}, "unknown option 'wieght'"),
        ({"tasks": {known[0]: 3}}, "write options"),
        ({"tasks": []}, "names no task"),
        ({"root": str(root)}, "unknown option 'root'"),
        ({"layout": name + "x"}, f"unknown layout '{name}x'.*{name}"),
        ({"layout": 3}, "name one of"),
        ({"tasks": {known[0]: {"labels": "../{name}.png"}}}, "without '..'"),
    ):
        with pytest.raises(OptionError, match=message):
            folder(data | wrong)


def test_a_layout_in_a_file_beside_the_set_and_joined_with_another(tmp_path):
    root = voc(tmp_path / "VOC2012")
    (root / "data.yaml").write_text("layout: PascalVOC\n")
    assert len(folder(root)) == 2
    (tmp_path / "voc.yaml").write_text("{layout: PascalVOC, path: VOC2012, augmented: true}\n")
    assert len(open_data([str(root), str(tmp_path / "voc.yaml")])) == 5
    assert len(join(folder(root), folder(root, "val"))) == 4


NEW = '''
"""A set of one's own."""

from dataclasses import dataclass
from typing import ClassVar, final

from garnish.data.layouts.layout import Layout


@final
@dataclass(frozen=True, kw_only=True)
class Greys(Layout):
    """Grey pictures."""

    folder: ClassVar[str] = "greys"
    origin: ClassVar[str] = "nowhere"
    marks: ClassVar[tuple[str, ...]] = ("greys.txt",)

    def described(self, root):
        return {"images": "*.png", "tasks": {"fg": {"task": "Saliency", "labels": "fg/{name}.png"}}}
'''


def test_a_new_layout_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/greys.py").write_text(NEW)
    from garnish.data import layouts

    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(tmp_path / "code")])
    registry.classes.cache_clear()
    try:
        picture(tmp_path / "set/p.png")
        put(tmp_path / "set/fg/p.png", halves(0, 255))
        found = folder({"layout": "Greys", "path": str(tmp_path / "set")})
        assert found[0].targets["fg"].mean() == 0.5
    finally:
        registry.classes.cache_clear()
        sys.modules.pop("garnish.data.layouts.greys", None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", backbone("mit_b0", options=OPTIONS))


def test_check_train_and_eval(built, weights, tmp_path, capsys):
    name, root = built
    words = ["--data.layout", name, "--data.path", str(root)]
    assert main(["check", *words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["checked"] == 2 and not report["errors"] and set(report["labels"]) == set(FACTS[name][1])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"backbone: {{name: mit_b0, weights: {weights}, options: {json.dumps(OPTIONS)}}}\n"
        f"adapter: {{name: LoRA, rank: 2}}\nhead: LinearHead\ndata: {{layout: {name}, path: set}}\n"
        "train: {steps: 1, batch_size: 2, lr: 1e-3, eval_every: 1, log: []}\n"
        f"out: {tmp_path}/run\n"
    )
    assert main(["train", "--config", str(recipe), "--json", "--quiet"]) == 0
    best = json.loads(capsys.readouterr().out)["best"]
    assert main(["eval", best, *words, "--split", "val", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(FACTS[name][1])
    (root / FACTS[name][2]).unlink()
    assert main(["check", *words]) == 2
    assert FACTS[name][2] in capsys.readouterr().err
