"""``garnish predict`` writes no map over another, and none over a picture that it was given."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file

import garnish as gn
import tiny
from garnish.cli import main
from garnish.errors import OptionError
from garnish.files.given_pictures import check_map_names, picture_files


@pytest.fixture
def bundle(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    trunk = tiny.backbone("vit")
    weights = {trunk.source_names.get(name, name): tensor for name, tensor in trunk.frozen_tensors().items()}
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, "trunk.safetensors")
    trunk = gn.backbone(trunk.name, "trunk.safetensors", options=trunk.options)
    tasks = {name: gn.Semantic(classes=2) for name in ("b", "a_b", "sheet")}
    gn.save(gn.adapt(trunk, gn.BitFit(), tasks).eval(), "bundle")
    return "bundle"


def test_no_map_is_written_over_another_or_over_a_picture(bundle, capsys):
    Path("pictures").mkdir()
    for name in ("x.png", "x_a.png", "x_b.png", "x_a_b.jpg"):
        Image.new("RGB", (16, 16), (1, 2, 3)).save(Path("pictures", name))
    held = {file: file.read_bytes() for file in Path("pictures").iterdir()}

    def refused(*words: str) -> str:
        assert main(["predict", bundle, *words]) == 2
        return capsys.readouterr().err

    assert "sheet of pictures/x.png, and another map of" in refused("pictures/x.png", "--out", "maps")
    told = refused("pictures/x.png", "pictures/x_a.png", "--tasks", "b,a_b", "--out", "maps")
    assert "x_a_b.png would be b of pictures/x_a.png, and another map of pictures/x.png" in told
    assert "would replace pictures/x_b.png" in refused("pictures", "--tasks", "b", "--out", "./pictures/")
    assert not Path("maps").exists() and {file: file.read_bytes() for file in Path("pictures").iterdir()} == held
    # a JPEG is in nobody's way, nor is a picture in another folder
    assert main(["predict", bundle, "pictures/x_a.png", "pictures/x_a_b.jpg", "--tasks", "b", "--out", "pictures"]) == 0
    assert main(["predict", bundle, "pictures", "--tasks", "b", "--out", "maps"]) == 0


def test_frames_of_a_video_and_pictures_of_a_folder_of_its_name_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/clip.mp4", "in/clip/000000.png", "in/clip_2/000000.png", "in/other.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert list(picture_files(["in"])) == ["clip_3", "other", "clip/000000", "clip_2/000000"]
    files = {"clip": Path("in/clip.mp4"), "000000": Path("in/clip/000000.png")}
    with pytest.raises(OptionError, match=r"maps of in/clip\.mp4 would lie beside in/clip/000000\.png; choose another"):
        check_map_names(files, ["seg"], Path("in"))
    check_map_names(files, ["seg"], Path("maps"))


def test_links_that_lead_nowhere_are_told(bundle, capsys):
    Path("in").mkdir()
    Image.new("RGB", (16, 16)).save("in/a.png")
    Path("in/b.png").symlink_to("gone.png")
    Path("in/c.mp4").symlink_to("gone.mp4")
    for given in ("in", "in/*"):
        assert main(["predict", bundle, given, "--tasks", "b", "--out", "maps", "--write", "maps"]) == 1
        err = capsys.readouterr().err
        assert "2 of 3 pictures not predicted" in err and "in/b.png: no such file" in err and "in/c.mp4: no such" in err


def test_arrays_are_not_written_over_either():
    files = {"x": Path("in/x.npy"), "x_depth": Path("in/x_depth.npy")}
    with pytest.raises(OptionError, match=r"depth of in/x.npy would replace in/x_depth.npy"):
        check_map_names(files, ["depth"], Path("in"))
