"""Bundles, merging, PEFT, exports and the runtime where pictures have other bands than RGB."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import band_cases as cases
import garnish as gn
import tiny
from garnish.commands.info import of_bundle
from garnish.errors import BundleError, DataError, OptionError
from garnish.exporting.own_rounding import own_rounding
from garnish.pictures.bands import Bands
from garnish.runtime.command import runtime_main
from garnish.runtime.session import Session

#: 16 bits as a file of reflectances has them
DEEP = Bands(names=cases.FIVE.names, range=(0.0, 10000.0), nodata=0.0)


@pytest.fixture(scope="module")
def five() -> gn.Model:
    return cases.model(
        "mit", gn.LoRA(rank=2), tasks=["seg", "depth"], bands=DEEP, known=cases.statistics(), extra="mean"
    )


@pytest.fixture(scope="module")
def bundle(five: gn.Model, tmp_path_factory) -> Path:
    return gn.save(five, tmp_path_factory.mktemp("saved") / "five", dtype="float32")


def stored(height: int = 61, width: int = 83) -> np.ndarray:
    """(H, W, 5) uint16 with pixels that were not measured."""
    made = np.random.default_rng(3).integers(1, 12000, (height, width, 5)).astype(np.uint16)
    made[::7, ::3, 1] = 0
    return made


# ---- bundles ------------------------------------------------------------------------------------------------------


def test_a_bundle_keeps_bands_statistics_and_filters(five, bundle):
    again = gn.load(bundle, backbone=tiny.backbone("mit"))
    images = cases.pictures()
    want = five(images)
    assert all(torch.equal(out, want[task]) for task, out in again(images).items())
    assert again.owners[0].given == five.owners[0].given and again.bands_of("depth") == DEEP
    told = json.loads((bundle / "bundle.json").read_text())
    assert told["format"] == 2 and told["owners"][0]["pictures"]["statistics"]["mean"] == list(cases.MEAN)
    facts = of_bundle(str(bundle), (64, 64))
    assert facts["bands"] == {"seg+depth": {"names": list(cases.FIVE.names), "filters": [16, 2, 7, 7]}}


def test_a_part_of_a_bundle_and_float16_keep_the_filters(five, tmp_path):
    again = gn.load(gn.save(five, tmp_path / "half", tasks=["depth"]), backbone=tiny.backbone("mit"))
    weight = five.owners[0].others.weight.half().float()
    assert torch.equal(again.owners[0].others.weight, weight) and again.owners[0].name == "depth"


def test_bundles_of_rgb_stay_of_format_1_and_join_those_of_other_bands(five, bundle, tmp_path):
    rgb = tiny.model("mit", gn.LoRA(rank=2), tasks=["normals"])
    other = gn.save(rgb, tmp_path / "rgb", dtype="float32")
    told = json.loads((other / "bundle.json").read_text())
    assert told["format"] == 1 and "pictures" not in told["owners"][0]
    both = gn.load([bundle, other], backbone=tiny.backbone("mit"))
    images = cases.pictures()
    assert torch.equal(both(images, ["seg"])["seg"], five(images, ["seg"])["seg"])
    assert torch.equal(both(images[:, :3], ["normals"])["normals"], rgb(images[:, :3])["normals"])
    with pytest.raises(OptionError, match=r"different bands or ranges .*; ask for those of one at a time"):
        both(images)
    added = tiny.model("mit", gn.LoRA(rank=2), tasks=["normals"])
    assert set(added.load(bundle)) == {"seg", "depth"}
    assert torch.equal(added(images, ["seg"])["seg"], five(images, ["seg"])["seg"])
    joined = gn.load(gn.save(both, tmp_path / "both", dtype="float32"), backbone=tiny.backbone("mit"))
    assert torch.equal(joined(images, ["depth"])["depth"], five(images, ["depth"])["depth"])
    assert joined.report((64, 64))["macs"] > 0


def pictures_of(facts: dict[str, Any]) -> dict[str, Any]:
    return facts["owners"][0]["pictures"]


def of_four_bands(facts: dict[str, Any]) -> None:
    pictures_of(facts)["bands"]["names"] = ["red", "green", "blue", "nir"]
    pictures_of(facts)["statistics"] = {name: [0.1] * 4 for name in pictures_of(facts)["statistics"]}


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "format 1 has no pictures of other bands, and here are some": lambda f: f.update(format=1),
    "format 2 has pictures of other bands, here are none": lambda f: f["owners"][0].pop("pictures"),
    "has format 3, this garnish reads 1 and 2": lambda f: f.update(format=3),
    r"lists of 2, 5 bands|lists of 5, 2 bands": lambda f: pictures_of(f)["statistics"].update(mean=[0.1, 0.2]),
    "pictures.extra: expected one of zero, mean": lambda f: pictures_of(f).update(extra="ones"),
    "pictures.bands: unknown option 'colour'": lambda f: pictures_of(f)["bands"].update(colour=1),
    r"has shape \(16, 2, 7, 7\), the model \(16, 1, 7, 7\)": of_four_bands,
    "band 'nir' is constant": lambda f: pictures_of(f)["statistics"].update(std=[0] * 5),
    r"owners\[0\].pictures: expected a mapping": lambda f: f["owners"][0].update(pictures=7),
}


@pytest.mark.parametrize("told", DAMAGE)
def test_damaged_descriptions_are_refused(bundle, tmp_path, told):
    facts = json.loads((bundle / "bundle.json").read_text())
    DAMAGE[told](facts)
    for name in ("weights.safetensors",):
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    (tmp_path / "bundle.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=told) as error:
        gn.load(tmp_path, backbone=tiny.backbone("mit"))
    assert "\n" not in str(error.value)


# ---- merging and PEFT ---------------------------------------------------------------------------------------------


def test_merging_folds_adapters_and_leaves_the_filters_to_the_bundle(five, tmp_path):
    gentle = copy.deepcopy(five)  # of far larger adapters, rounding alone is more than merge allows on some CPUs
    for name, tensor in gentle.own_tensors().items():
        if "lora" in name:
            tensor.detach().mul_(0.3)
    gn.merge(gentle, tmp_path / "merged")
    merged = gn.load(tmp_path / "merged")
    images = cases.pictures()
    assert tiny.far(merged(images)["seg"], gentle(images)["seg"]) < 1e-4
    assert merged.owners[0].given == five.owners[0].given and not list(merged.owners[0].placed())
    with pytest.raises(OptionError, match="filters of other bands than RGB are no part of a checkpoint; give a folder"):
        gn.merge(gentle, tmp_path / "alone.safetensors")
    with pytest.raises(OptionError, match="Frozen of seg adds nothing to the backbone"):
        gn.merge(cases.model("mit", gn.Frozen(), tasks=["seg"]), tmp_path / "none")
    streams = cases.model("swin", gn.MTLoRA(rank=2, extras=False), tasks=["seg", "depth"])
    gn.merge(streams, tmp_path / "streams")
    again = gn.load(tmp_path / "streams")
    assert all(tiny.far(again(images)[task], out) < 1e-3 for task, out in streams(images).items())


def test_peft_has_no_place_for_other_bands(five, tmp_path):
    with pytest.raises(BundleError, match="export_peft: the pictures of seg\\+depth have bands of their own"):
        gn.export_peft(five, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


# ---- predicting ---------------------------------------------------------------------------------------------------


def test_predict_takes_numbers_of_files_and_values(five):
    numbers = stored()
    maps = five.predict(numbers)
    values = DEEP.values(numbers, "x")
    assert np.isnan(values).sum() == (numbers == 0).sum() > 0
    again = five.predict(torch.from_numpy(values), ["seg"])
    assert torch.equal(maps["seg"], again["seg"]) and maps["depth"].shape == (61, 83)
    ints = five.predict(torch.from_numpy(numbers.astype(np.int32)).permute(2, 0, 1), ["seg"])
    assert torch.equal(maps["seg"], ints["seg"])
    colours = np.clip(np.nan_to_num(numbers[..., [4, 2, 1]] / 10000), 0, 1) * 255
    assert np.abs(maps.picture - np.where(numbers[..., [4, 2, 1]] == 0, 0, colours)).max() <= 0.51
    thermal, known = Bands(names=("thermal",)), cases.statistics((0.5,), (0.1,))
    one = cases.model("mit", gn.Frozen(), tasks=["seg"], bands=thermal, known=known)
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    assert torch.equal(one.predict(grey)["seg"], one.predict(Image.fromarray(grey))["seg"])


def test_predict_reads_files_of_other_bands(five, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    numbers = stored()
    want = five.predict(numbers)["seg"]
    np.save(tmp_path / "five.npy", numbers)
    by_name = {name: numbers[..., place] for place, name in enumerate(DEEP.names)}
    np.savez(tmp_path / "five.npz", **dict(reversed(by_name.items())))
    tifffile.imwrite(tmp_path / "five.tif", numbers, photometric="minisblack", planarconfig="contig")
    for name in ("five.npy", "five.npz", "five.tif"):
        assert torch.equal(five.predict(tmp_path / name)["seg"], want), name
    free = Bands(names=DEEP.names, range=DEEP.range)
    model = cases.model("mit", gn.LoRA(rank=2), tasks=["seg"], bands=free, known=cases.statistics())
    gaps = numbers.copy()
    gaps[:20] = 7
    says = [(42113, "s", 2, "7", True)]  # GDAL's tag of the number that means "not measured"
    tifffile.imwrite(tmp_path / "gaps.tif", gaps, photometric="minisblack", planarconfig="contig", extratags=says)
    values = Bands(names=DEEP.names, range=DEEP.range, nodata=7).values(gaps, "x")
    assert torch.equal(model.predict(tmp_path / "gaps.tif")["seg"], model.predict(torch.from_numpy(values))["seg"])
    np.savez(tmp_path / "other.npz", **{f"b{k}": numbers[..., k] for k in range(4)})
    with pytest.raises(DataError, match=r"other\.npz: 4 bands, and the tasks take 5: nir, blue, green, swir, red"):
        five.predict(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (stored().transpose(2, 0, 1), r"\(H, W, 5\), got \(5, 61, 83\) uint16; give picture.transpose\(1, 2, 0\)"),
        (stored()[..., :3], r"expected \(H, W, 5\), got \(61, 83, 3\) uint16"),
        (torch.zeros(3, 8, 8), r"expected a tensor \(5, H, W\), got \(3, 8, 8\)"),
        ("street.jpg", "street.jpg: no such"),
        (Image.new("P", (8, 8)), "mode P hold no numbers of bands"),
    ],
)  # fmt: skip
def test_pictures_of_other_bands_are_refused_in_one_line(five, picture, told):
    with pytest.raises(DataError, match=told):
        five.predict(picture)


# ---- exports ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "kind"), [("onnx", None), ("onnx", "uint16"), ("torch", "float")])
def test_exports_take_all_bands_through_one_convolution(to, kind, tmp_path, capsys):
    import exports

    torch.manual_seed(0)
    model = gn.adapt(
        exports.trunk("mit"), gn.LoRA(rank=2, layers=("enter.proj", "attn.q")), {"seg": gn.Semantic(classes=5)},
        bands=DEEP, statistics=cases.statistics(), extra="mean",
    ).eval()  # fmt: skip
    made = gn.export(model, tmp_path / "out", to=to, **({} if kind is None else {"input": kind}))
    dtype = "uint16" if kind == "uint16" else "float32"
    assert made.facts["format"] == 2 and made.facts["image"]["dtype"] == dtype
    assert made.certificate["tasks"]["seg"]["relative"] < 1e-4
    assert own_rounding(model, made.certificate, getattr(torch, dtype))["seg"] < 1e-4
    if to == "torch":
        return
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(tmp_path / "out/model.onnx").graph
    shapes = {value.name: list(value.dims) for value in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "Conv")
    assert shapes[first.input[1]] == [16, 5, 7, 7]  # red, green, blue and two more: not one convolution beside another
    session, numbers = Session(tmp_path / "out"), stored()
    assert session.bands == DEEP
    assert runtime_main([str(tmp_path / "out"), "--list"]) == 0
    assert f"pictures: 5 bands, {', '.join(DEEP.names)}, as files hold them" in capsys.readouterr().out
    found, want = session.predict(numbers), model.predict(numbers)
    assert (found["seg"] == want["seg"].numpy()).mean() > 0.999 and np.array_equal(found.picture, want.picture)
    np.save(tmp_path / "five.npy", numbers)
    assert np.array_equal(session.predict(tmp_path / "five.npy")["seg"], found["seg"])
    with pytest.raises(OptionError, match=rf"expected \(N, 5, H, W\) {dtype}, got \(1, 3, 64, 64\) uint8"):
        session.outputs(np.zeros((1, 3, 64, 64), np.uint8))
    if kind == "uint16":
        with pytest.raises(DataError, match="holds float32, and this graph takes uint16; export it with --input float"):
            session.predict(numbers.astype(np.float32))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"adapters": "inputs"}, "adapters='inputs' takes 8-bit RGB, and the pictures of seg have bands of their own"),
        ({"tasks": ["seg", "normals"]}, "tasks take pictures of different bands or ranges"),
    ],
)
def test_what_exports_cannot_be_of_other_bands_is_refused(five, bundle, tmp_path, options, told):
    both = gn.load(bundle, backbone=tiny.backbone("mit"))
    both.add(gn.Frozen(), {"normals": gn.Normals()})
    with pytest.raises(OptionError, match=told):
        gn.export(both, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_page_shows_rgb_alone(five, tmp_path, monkeypatch):
    monkeypatch.setattr("garnish.exporting.export.export_page_files", lambda *_: {"index.html": b""})
    with pytest.raises(OptionError, match="the page takes 8-bit RGB, and the pictures of seg have bands of their own"):
        gn.export(five, tmp_path / "out", page=True)
    with pytest.raises(OptionError, match='input="uint16", but the pictures are 8-bit RGB'):
        gn.export(tiny.model("mit", gn.Frozen(), tasks=["seg"]), tmp_path / "out", input="uint16")
