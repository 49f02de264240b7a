"""Published layouts, read from small trees that follow their descriptions and not our code.

Shape letters: H W pixels.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from garnish import lookup
from garnish.backbones.build import backbone
from garnish.cli import main
from garnish.data import matlab
from garnish.data.check import check
from garnish.data.folder import folder, join
from garnish.data.layouts.pascal_context import label_edges
from garnish.data.matlab import read_mat
from garnish.data.source import open_data
from garnish.errors import DataError, OptionError
from test_cli import OPTIONS, write_weights

H, W = 24, 32
VOID = 255
IDS = {"train": ["a_01", "a_02"], "val": ["b_01", "b_02"]}


def put(path: Path, values, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".mat":
        savemat(path, values, do_compression=True)
    elif palette:
        image = Image.fromarray(np.asarray(values, np.uint8), "L").convert("P")
        image.putdata(np.asarray(values, np.uint8).reshape(-1).tolist())
        image.putpalette([k * 37 % 256 for k in range(768)])
        image.save(path)
    else:
        Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def lists(root: Path, where: str, **splits) -> None:
    (root / where).mkdir(parents=True, exist_ok=True)
    for split, names in (splits or IDS).items():
        (root / where / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))


def picture(path: Path) -> Path:
    seed = sum(path.stem.encode()) * 7 + len(path.stem)
    return put(path, np.random.default_rng(seed).integers(0, 255, (H, W, 3)))


def halves(left, right, dtype=np.uint8) -> np.ndarray:
    """(H, W) with one value in the left half and another in the right one."""
    out = np.full((H, W), left, dtype)
    out[:, W // 2 :] = right
    return out


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- the trees, as ../shared/reference/conventions.md, section 2.4, states them ---


def voc(root: Path) -> Path:
    for name in [*IDS["train"], *IDS["val"], "c_01"]:
        picture(root / f"JPEGImages/{name}.jpg")
    for name in [*IDS["train"], *IDS["val"]]:
        ids = halves(0, 15)
        ids[:, W // 2 - 1] = VOID
        ids[0, :3] = (20, 7, 1)
        put(root / f"SegmentationClass/{name}.png", ids, palette=True)
    put(root / "SegmentationClassAug/c_01.png", halves(3, 4))
    lists(root, "ImageSets/Segmentation", **IDS, trainaug=[*IDS["train"], "c_01"])
    return root


def ade(root: Path) -> Path:
    for split, names in (("training", IDS["train"]), ("validation", IDS["val"])):
        for name in names:
            picture(root / f"images/{split}/{name}.jpg")
            ids = halves(0, 150)
            ids[0, :2] = (1, 13)
            put(root / f"annotations/{split}/{name}.png", ids)
    return root


def cityscapes(root: Path) -> Path:
    for split, city in (("train", "aachen"), ("val", "lindau")):
        for name in IDS[split]:
            stem = f"{split}/{city}/{city}_{name}"
            picture(root / f"leftImg8bit/{stem}_leftImg8bit.png")
            ids = np.arange(H * W).reshape(H, W) % 34
            put(root / f"gtFine/{stem}_gtFine_labelIds.png", ids)
            put(root / f"gtFine/{stem}_gtFine_labelTrainIds.png", np.where(ids % 20 == 19, VOID, ids % 20))
            put(root / f"gtFine/{stem}_gtFine_instanceIds.png", ids)
            put(root / f"gtFine/{stem}_gtFine_color.png", np.zeros((H, W, 4)))
    return root


def nyud(root: Path, variant: str) -> Path:
    names = [*IDS["train"], *IDS["val"]]
    normals = np.zeros((H, W, 3), np.float32)
    normals[:, : W // 2] = (0.6, 0.0, -0.8)
    edge = np.zeros((H, W), np.float32)
    edge[:, W // 2] = 1
    depth = halves(2.5, 255, np.float32)
    depth[0, 0] = 7.25
    ids = halves(0, 40)
    ids[0, :2] = (1, 6)
    for name in names:
        picture(root / f"images/{name}.{'jpg' if variant == 'A' else 'png'}")
        put(root / f"segmentation/{name}.png", ids)
        put(root / f"depth/{name}.npy", depth)
        if variant == "A":
            put(root / f"normals/{name}.npy", normals)
            put(root / f"edge/{name}.npy", edge)
        else:
            rgb = np.where((normals == 0).all(-1, keepdims=True), 0, np.rint((normals + 1) * 127.5))
            put(root / f"normals/{name}.png", rgb)
            put(root / f"edge/{name}.png", edge * 255)
    if variant == "B":
        put(root / "centroids.npy", np.zeros((40, 3)))
    lists(root, "gt_sets")
    return root


def thing(class_ind: int, mask, parts) -> dict:
    """One object of a Pascal-Part annotation; ``parts``: (name, mask)."""
    told = np.zeros((1, len(parts)), [("part_name", object), ("mask", object)])
    for number, (name, part) in enumerate(parts):
        told[0, number] = (name, part.astype(np.uint8))
    held = told if parts else np.zeros((0, 0))
    return {
        "class": "person",
        "class_ind": np.float64(class_ind),
        "mask": np.asarray(mask, np.uint8),
        "parts": held,
    }


def anno(things: list[dict]) -> dict:
    objects = np.zeros((1, len(things)), [(k, object) for k in ("class", "class_ind", "mask", "parts")])
    for number, one in enumerate(things):
        objects[0, number] = tuple(one.values())
    return {"anno": {"imname": "x", "objects": objects if things else np.zeros((0, 0))}}


def box(top: int, left: int) -> np.ndarray:
    out = np.zeros((H, W), bool)
    out[top : top + 4, left : left + 4] = True
    return out


#: Pascal-Part's names, and the group each belongs to: head, torso, upper arms, lower arms, upper legs, lower legs
PARTS = {
    **dict.fromkeys(("head", "hair", "leye", "rear", "mouth", "lebrow"), 1),
    **dict.fromkeys(("torso", "neck"), 2),
    **dict.fromkeys(("luarm", "ruarm"), 3),
    **dict.fromkeys(("llarm", "rhand"), 4),
    **dict.fromkeys(("luleg", "ruleg"), 5),
    **dict.fromkeys(("rlleg", "lfoot"), 6),
}
PLACES = {name: (4 * (k // 7), 4 * (k % 7)) for k, name in enumerate(PARTS)}


def pascal(root: Path) -> Path:
    names = [*IDS["train"], *IDS["val"]]
    everything = np.ones((H, W))
    # 284 person and 440 wall are known indoors; 360 sky and 187 grass are not
    context = np.full((H, W), 440, np.uint16)
    context[:, W // 2 :] = 360
    context[H // 2 :, W // 2 :] = 284
    for number, name in enumerate(names):
        picture(root / f"JPEGImages/{name}.jpg")
        where = "VOC12" if number % 2 == 0 else "pascal-context"
        put(root / f"semseg/{where}/{name}.png", halves(0, 15 if number % 2 == 0 else 8))
        put(root / f"pascal-context/trainval/{name}.mat", {"LabelMap": context})
        put(root / f"sal_distill/{name}.png", halves(127, 128))
        rgb = np.zeros((H, W, 3), np.uint8)
        rgb[...] = (255, 128, 128)
        rgb[-1] = (127, 128, 127)  # no direction at all
        put(root / f"normals_distill/{name}.png", rgb)
        person = thing(15, everything, [(n, box(*PLACES[n])) for n in PARTS])
        dog = thing(12, everything, [("tail", ~box(0, 0))])
        bare = thing(15, everything, [])
        put(root / f"human_parts/{name}.mat", anno([dog, person] if number % 2 == 0 else [dog, bare]))
    # the other labels win where both lie there
    put(root / f"semseg/pascal-context/{names[0]}.png", halves(9, 9))
    lists(root, "ImageSets/Context")
    lists(root, "ImageSets/Parts")
    return root


BUILDERS = {
    "PascalVOC": voc,
    "ADE20K": ade,
    "Cityscapes": cityscapes,
    "NYUDMultiTask": lambda root: nyud(root, "A"),
    "PascalContextMultiTask": pascal,
}
#: name in the archive, the tasks, and a label that may not be missing
FACTS = {
    "PascalVOC": ("VOCdevkit/VOC2012", {"seg": 21}, "SegmentationClass/a_02.png"),
    "ADE20K": ("ADEChallengeData2016", {"seg": 150}, "annotations/training/a_02.png"),
    "Cityscapes": ("cityscapes", {"seg": 19}, "gtFine/train/aachen/aachen_a_02_gtFine_labelIds.png"),
    "NYUDMultiTask": ("NYUD_MT", {"seg": 40, "depth": 1, "normals": 3, "edges": 1}, "normals/a_02.npy"),
    "PascalContextMultiTask": (
        "PASCAL_MT",
        {"seg": 21, "parts": 7, "saliency": 1, "normals": 3, "edges": 1},
        "human_parts/a_02.mat",
    ),
}


@pytest.fixture(params=sorted(BUILDERS))
def built(request, tmp_path):
    """(name of a layout, its tree)"""
    return request.param, BUILDERS[request.param](tmp_path / "set")


def test_every_layout_is_tried_here():
    assert set(lookup.classes("layouts")) == set(BUILDERS) == set(FACTS)


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
    with pytest.raises(DataError, match="no split 'test'"):
        folder(data, "test")


def test_the_published_folder_is_found_in_its_parent(built, tmp_path):
    name, root = built
    parent = tmp_path / "downloads"
    there = parent / FACTS[name][0]
    there.parent.mkdir(parents=True)
    shutil.move(root, there)
    assert len(folder({"layout": name, "path": str(parent)})) == 2


def test_a_missing_label_is_named(built):
    name, root = built
    (root / FACTS[name][2]).unlink()
    with pytest.raises(DataError) as error:
        folder({"layout": name, "path": str(root)})
    text = one_line(error)
    assert FACTS[name][2] in text and "not complete" in text and lookup.find("layouts", name).origin in text
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


# --- MATLAB files ---


def plain(value):
    """What scipy gives, as read_mat gives it."""
    if value.dtype.names:
        return [{name: plain(entry[name]) for name in value.dtype.names} for entry in value.reshape(-1, order="F")]
    if value.dtype == object:
        return [plain(entry) for entry in value.reshape(-1, order="F")]
    return "".join(value.tolist()) if value.dtype.kind == "U" else value


def test_matlab_files_are_what_scipy_reads(tmp_path):
    two = np.zeros((2, 2), [("a", object), ("longer", object)])
    for number, entry in enumerate(two.reshape(-1)):
        entry["a"], entry["longer"] = np.full((1, number), number), "x" * number
    values = {
        "numbers": np.arange(6.0).reshape(2, 3) / 7,
        "single": np.float32(0.5),
        "ids": np.arange(12, dtype=np.uint16).reshape(3, 4),
        "cube": np.arange(-12, 12, dtype=np.int64).reshape(2, 3, 4),
        "yes": np.eye(3, dtype=bool),
        "text": "façade",
        "cells": np.array([[np.zeros((0, 0)), "b"], [np.eye(2), "c"]], dtype=object),
        "nested": {"a": 1.0, "b": {"c": "x" * 9}},
        "two": two,
    }
    for compress in (True, False):
        savemat(file := tmp_path / f"{compress}.mat", values, do_compression=compress)
        want = loadmat(file)
        for name in values:
            np.testing.assert_equal(read_mat(file, name), plain(want[name]), err_msg=name)


def test_matlab_files_that_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "x.mat"

    def refused(message, variable="a"):
        with pytest.raises(DataError) as error:
            read_mat(file, variable)
        assert re.search(message, one_line(error)) and str(file) in str(error.value), str(error.value)

    refused("cannot be read")
    file.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n")
    refused(r"7\.3 .* is not read; .*-v7")
    file.write_bytes(b"no such thing")
    refused("not a MATLAB 5 file")
    savemat(file, {"a": csc_array(np.eye(3)), "b": 1j})
    refused("sparse matrices")
    refused("complex", "b")
    refused("no variable 'c'", "c")
    savemat(file, {"a": np.eye(3)})
    sound = file.read_bytes()
    for cls in (3, 16, 17):  # object, function, opaque
        changed = bytearray(sound)
        changed[128 + 16] = cls
        file.write_bytes(bytes(changed))
        refused("objects, functions")
    changed = bytearray(sound)
    changed[128 + 32 : 128 + 36] = (2**30).to_bytes(4, "little")  # rows
    file.write_bytes(bytes(changed))
    refused("72 bytes for numbers of shape")
    deep = {"a": 1.0}
    for _ in range(40):
        deep = {"a": deep}
    savemat(file, deep)
    refused("16 levels")
    savemat(file, {"a": np.zeros((1000, 1000))}, do_compression=True)
    assert file.stat().st_size < 20_000
    monkeypatch.setattr(matlab, "MAX_BYTES", 2**20)
    refused("larger than 1 MiB")


def test_a_damaged_matlab_file_ends_in_one_line(tmp_path):
    file = tmp_path / "x.mat"
    rng = np.random.default_rng(0)
    refused = 0
    for compress in (True, False):
        held = anno([thing(15, np.ones((3, 3)), [("head", np.ones((3, 3)))])])
        savemat(file, held, do_compression=compress)
        sound = file.read_bytes()
        for _ in range(200):
            changed = bytearray(sound)
            for place in rng.integers(0, len(sound), rng.integers(1, 4)):
                changed[place] = rng.integers(0, 256)
            if rng.random() < 0.2:
                del changed[rng.integers(0, len(sound)) :]
            file.write_bytes(bytes(changed))
            try:
                read_mat(file, "anno")
            except DataError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 120


# --- the command line ---


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
