"""``garnish predict`` with pictures and maps in a store: the same files as of folders, sent when they are whole."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import garnish as gn
import tiny
from garnish.cli import main
from garnish.stores.place import Place

fsspec = pytest.importorskip("fsspec", reason="the extra [store] is not installed")


@pytest.fixture
def bundle(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GARNISH_CACHE", str(tmp_path / "cache"))
    made_bundle()
    fsspec.filesystem("memory").store.clear()
    return "bundle"


def made_bundle() -> None:
    """A tiny bundle in the working directory."""
    trunk = tiny.backbone("vit")
    weights = {trunk.source_names.get(name, name): tensor for name, tensor in trunk.frozen_tensors().items()}
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, "trunk.safetensors")
    trunk = gn.backbone(trunk.name, "trunk.safetensors", options=trunk.options)
    gn.save(gn.adapt(trunk, gn.BitFit(), {"seg": gn.Semantic(classes=2)}).eval(), "bundle")


def test_maps_of_a_store_are_those_of_a_folder(bundle, capsys):
    pictures = Place.of("memory://bucket/in")
    for number, name in enumerate(("a.png", "b/a.png", "b/c.png", "note.txt", ".hidden/d.png")):
        made = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 255, (16, 24, 3), np.uint8)
        Image.fromarray(pixels).save(made, "PNG")
        pictures.write(name, made.getvalue())
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Path("in", name).write_bytes(made.getvalue())
    assert main(["predict", bundle, "in", "--out", "maps"]) == 0
    capsys.readouterr()
    assert main(["predict", bundle, "memory://bucket/in/", "--out", "memory://bucket/maps"]) == 0
    told = capsys.readouterr().out
    assert "memory://bucket/in/b/a.png: memory://bucket/maps/b/a_seg.png" in told and "cache" not in told
    maps = Place.of("memory://bucket/maps")
    files = sorted(path.relative_to("maps").as_posix() for path in Path("maps").rglob("*") if path.is_file())
    assert maps.names() == files and len(files) == 6
    assert all(maps.read(name, most=10**6) == Path("maps", name).read_bytes() for name in files)

    # what is there is left out, and not fetched; what lacks a file is made anew
    maps.remove("b/c_sheet.png")
    versions = maps.listed()
    Place.of("memory://bucket/in").remove("a.png")
    assert main(["predict", bundle, "memory://bucket/in/b", "--out", "memory://bucket/maps/b", "--skip-existing"]) == 0
    assert "1 picture left out" in capsys.readouterr().err
    now = maps.listed()
    assert now.keys() == {*versions, "b/c_sheet.png"}
    assert {name for name in versions if now[name] != versions[name]} == {"b/c_seg.png"}

    # a pattern and a single picture, with maps in a folder; one that cannot be read is told by its address
    pictures.write("b/d.png", b"no picture")
    words = ["memory://bucket/in/b/[ad].png", "memory://bucket/in/b/c.png"]
    assert main(["predict", bundle, *words, "--out", "here", "--json"]) == 1
    told, err = capsys.readouterr()
    assert json.loads(told)["memory://bucket/in/b/c.png"] == ["here/c_seg.png", "here/c_sheet.png"]
    assert "1 of 3 pictures not predicted" in err and "memory://bucket/in/b/d.png" in err and "cache" not in err
    assert Path("here/a_seg.png").read_bytes() == Path("maps/b/a_seg.png").read_bytes()


def test_what_is_not_there_is_told_by_its_address(bundle, capsys):
    Place.of("memory://bucket/in").write("x.txt", b"1")
    for words in (["memory://bucket/in", "--out", "maps"], ["memory://bucket/in/y.png", "--out", "maps"]):
        assert main(["predict", bundle, *words]) == 2
        assert f"{words[0]}: holds no picture" in capsys.readouterr().err
    assert main(["predict", bundle, "x.png", "--out", "s4://bucket"]) == 2
    assert "'s4'://: is no protocol" in capsys.readouterr().err


def test_no_map_is_sent_over_a_picture(bundle, capsys):
    place = Place.of("memory://bucket/in")
    for name in ("x.png", "x_seg.png"):
        place.write(name, b"not looked at")
    assert main(["predict", bundle, "memory://bucket/in", "--out", "memory://bucket/in"]) == 2
    told = capsys.readouterr().err
    assert "seg of memory://bucket/in/x.png would replace memory://bucket/in/x_seg.png" in told
