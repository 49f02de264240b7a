"""``garnish.runtime``: the maps and files of ``garnish predict`` from an exported folder, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import exported_folders as made
import garnish as gn
from garnish.cli import main
from garnish.decodings.classes import Classes
from garnish.decodings.prediction import Prediction
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.errors import BundleError, DataError, GarnishError, OptionError
from garnish.files.atomic import write_folder
from garnish.runtime import Session, adapters
from garnish.runtime.command import runtime_main

TASKS = {
    "seg": gn.Semantic(classes=("sky", "road", "car")),
    "depth": gn.Depth(max_metres=20.0),
    "normals": gn.Normals(),
    "edges": gn.Edges(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return made.merged(tmp_path_factory.mktemp("merged"))


@pytest.fixture(scope="module")
def session(folder) -> Session:
    return Session(folder, threads=1)


@pytest.fixture
def picture(tmp_path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (23, 37, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    return tmp_path / "street.png"


def test_tasks_name_the_decodings_of_the_folders():
    assert {name: task.decoding for name, task in TASKS.items()} == made.DECODINGS


@pytest.mark.parametrize("size", [(23, 37), (1, 1), (64, 48)])
def test_raw_outputs_are_those_of_torch(session, size):
    images = np.random.default_rng(0).integers(0, 256, (3, 3, *size), dtype=np.uint8)
    found = session.outputs(images)
    assert list(found) == list(TASKS)
    for seed, (name, out) in enumerate(found.items()):
        weight = torch.from_numpy(made.weights(seed, TASKS[name].channels))
        low = F.conv2d(torch.from_numpy(images) / 255, weight, padding=1, stride=2)
        torch.testing.assert_close(
            torch.from_numpy(out), F.interpolate(low, size, mode="bilinear"), rtol=1e-4, atol=1e-5
        )


def test_maps_and_files_are_those_of_a_model(session, picture, tmp_path):
    pixels = np.asarray(Image.open(picture))
    raw = session.outputs(pixels.transpose(2, 0, 1)[None].copy())
    maps = {name: TASKS[name].decode(torch.from_numpy(out))[0] for name, out in raw.items()}
    wanted = Prediction(pixels, maps, TASKS, "street")
    found = session.predict(picture)
    assert (found.picture == pixels).all() and found.name == "street" and list(found.maps) == list(maps)
    for name in maps:
        assert found[name].dtype == maps[name].numpy().dtype
        torch.testing.assert_close(torch.from_numpy(found[name]), maps[name], rtol=2e-6, atol=1e-9)
    ours, theirs = found.write(tmp_path / "numpy"), wanted.write(tmp_path / "torch")
    assert [file.name for file in ours] == [f"street_{name}.png" for name in (*maps, "sheet")]
    for one, other in zip(ours, theirs, strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()
    assert found.painted().keys() == maps.keys() and found.save(tmp_path / "a/sheet.png").stat().st_size > 0


def test_pictures_of_any_kind_and_some_tasks(session, picture):
    pixels = np.asarray(Image.open(picture))
    for given in (picture, str(picture), Image.open(picture), pixels):
        found = session.predict(given, tasks=["edges", "seg", "edges"])
        assert list(found.maps) == ["seg", "edges"]  # in the bundle's order, each once
        assert (found["seg"] == session.predict(picture)["seg"]).all()
    grey = pixels[..., 0]
    assert (session.predict(grey)["depth"] == session.predict(np.stack([grey] * 3, -1))["depth"]).all()
    with pytest.raises(OptionError, match="no map of task 'depth'; there are seg, edges"):
        found["depth"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"picture": "gone.png"}, "gone.png: no such picture; check the path"),
        ({"picture": np.zeros((4, 4, 3))}, r"uint8; got .* float64; give \(picture \* 255\)"),
        ({"picture": 3}, "predict: picture: expected"),
        ({"tasks": []}, "tasks is an empty list"),
        ({"tasks": ["dept"]}, "unknown task 'dept'; did you mean 'depth'"),
        ({"tasks": "seg"}, "predict: tasks: expected a list"),
        ({"bundle": "x"}, "holds one bundle and takes no other; leave bundle 'x' out"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(session, given, says):
    with pytest.raises((OptionError, DataError), match=says) as caught:
        session.predict(**{"picture": np.zeros((4, 4, 3), np.uint8), **given})
    assert "\n" not in str(caught.value)


def test_a_graph_of_floats_gives_the_same(session, picture, tmp_path):
    graph = made.merged_graph(dtype="float32")
    image = {"dtype": "float32", "least": 1}
    facts = made.facts_of(graph, tasks=made.told_tasks(made.DECODINGS), outputs=list(made.DECODINGS), image=image)
    found, wanted = Session(made.write_files(tmp_path, facts, graph)).predict(picture), session.predict(picture)
    for name in wanted.maps:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_a_picture_smaller_than_the_graph_takes(tmp_path):
    with pytest.raises(DataError, match="a picture of 40x7 is smaller than the 8 pixels that this graph takes"):
        Session(made.merged(tmp_path, image={"dtype": "uint8", "least": 8})).predict(np.zeros((7, 40, 3), np.uint8))


def test_an_output_that_is_not_finite_is_no_map(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "weights", lambda seed, channels: np.full((channels, 3, 3, 3), 3e38, np.float32))
    white = np.full((8, 8, 3), 255, np.uint8)
    for precision, says in (("fp32", "check the picture"), ("fp16", "export it with --precision fp32")):
        opened = Session(made.merged(tmp_path / precision, precision=precision), threads=1)
        with pytest.raises(GarnishError, match=f"^picture: the output of task 'seg' is not finite; .*{says}"):
            opened.predict(white)


# ---- the folder -------------------------------------------------------------------------------------------------


def _with_facts(folder: Path, **changes) -> None:
    facts = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps({**facts, **changes}))
    made.reseal(folder)


def _task(**changes) -> dict:
    told = made.told_tasks(made.DECODINGS)
    told["seg"] |= changes
    return told


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "export.json").unlink(), "is not an exported folder .it holds no export.json"),
        (lambda f: (f / "model.onnx").unlink(), "model.onnx: cannot be read"),
        (lambda f: (f / "model.onnx").write_bytes(b"x"), "model.onnx: is not the graph of its manifest"),
        (lambda f: (f / "export.json").write_text("{}"), "export.json: differs from what was saved"),
        (lambda f: _with_facts(f, format=3), "has format 3, this garnish reads 1 and 2"),
        (lambda f: _with_facts(f, format=2), "format 2 and image.bands do not go together"),
        (lambda f: _with_facts(f, to="torch"), "is a torch.export program, which torch runs"),
        (lambda f: _with_facts(f, surplus=1), "unknown key surplus"),
        (lambda f: _with_facts(f, tasks={}), "names no task"),
        (lambda f: _with_facts(f, outputs=["seg"]), "has other outputs than its manifest says"),
        (lambda f: _with_facts(f, image={"dtype": "float32", "least": 1}), "has other inputs .*image.*uint8.*not"),
        (lambda f: _with_facts(f, tasks=_task(output="no")), "tasks.seg: output 'no' is not one of its own"),
        (lambda f: _with_facts(f, tasks=_task(output="depth")), "tasks.depth: output 'depth' is not one of its own"),
        (lambda f: _with_facts(f, tasks=_task(channels=4)), "tasks.seg: has 4 channels, its decoding 3"),
        (
            lambda f: _with_facts(f, tasks=_task(decoding={"name": "Clases", "options": {}})),
            "tasks.seg: unknown decoding 'Clases'; did you mean 'Classes'",
        ),
        (
            lambda f: _with_facts(f, tasks=_task(decoding={"name": "Classes", "options": {"names": [1]}})),
            "tasks.seg: Classes.names",
        ),
    ],
)
def test_a_spoilt_folder_is_refused_in_one_line(folder, tmp_path, spoil, says):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path)
    with pytest.raises(BundleError, match=says) as caught:
        Session(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_bundle_in_place_of_an_export(tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(BundleError, match=r"it holds no export.json\); it is a bundle: garnish export makes one of it"):
        Session(tmp_path)


def test_no_folder_and_no_graph(tmp_path):
    with pytest.raises(BundleError, match=r"gone: is not an exported folder .no such folder"):
        Session(tmp_path / "gone")
    with pytest.raises(OptionError, match=r"threads: expected .*1 to 1,024"):
        Session(tmp_path, threads=0)
    made.write_files(tmp_path, made.facts_of(b"no graph", tasks=made.told_tasks(made.DECODINGS)), b"no graph")
    with pytest.raises(BundleError, match=r"model\.onnx: cannot be opened by onnxruntime") as caught:
        Session(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_output_of_another_shape_than_stated(tmp_path):
    decodings = made.DECODINGS | {"seg": Classes(names=("a", "b", "c", "d"))}
    graph = made.merged_graph()
    facts = made.facts_of(graph, tasks=made.told_tasks(decodings), outputs=list(decodings))
    with pytest.raises(BundleError, match=r"output 'seg' is \(1, 3, 5, 6\) float32, expected \(1, 4, 5, 6\)"):
        Session(made.write_files(tmp_path, facts, graph)).predict(np.zeros((5, 6, 3), np.uint8))


# ---- bundles as inputs ------------------------------------------------------------------------------------------

SEG, DEPTH = Classes(names=("a", "b", "c", "d", "e")), SoftplusDepth(max_metres=50.0)


@pytest.fixture
def several(tmp_path) -> tuple[Path, dict[str, tuple[int, dict[str, np.ndarray]]]]:
    """A graph with six bundles of other ranks, three in each slot."""
    folder, bundles = made.with_inputs(tmp_path / "inputs"), {}
    for number in range(6):
        slot, task, decoding = (0, "seg", SEG) if number % 2 == 0 else (1, "depth", DEPTH)
        tensors = made.bundle_tensors(number, number + 1, decoding, slot)
        bundles[f"b{number}"] = (slot, tensors)
        made.add_bundle(folder, f"b{number}", task, decoding, tensors, slot)
    return folder, bundles


def test_another_bundle_without_a_new_session(several, capfd):
    folder, bundles = several
    opened = Session(folder, threads=1)
    assert opened.bundles == tuple(bundles)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7), dtype=np.uint8)
    for name, (slot, tensors) in bundles.items():
        (task,) = opened.tasks(name)
        found = opened.outputs(images, name)[task]
        np.testing.assert_allclose(found, made.raw_of(tensors, images, slot), rtol=1e-4, atol=1e-2)
    assert capfd.readouterr().err == ""  # onnxruntime warns of each input with a default
    made.add_bundle(folder, "late", "seg", SEG, bundles["b2"][1])  # while it is open
    assert (opened.outputs(images, "late")["seg"] == opened.outputs(images, "b2")["seg"]).all()
    with pytest.raises(OptionError, match=r"which bundle\? there are b0, b1"):
        opened.predict(np.zeros((5, 6, 3), np.uint8))
    for name in ("b9", "../b0", "export", ""):
        with pytest.raises(OptionError, match="no bundle '"):
            opened.predict(np.zeros((5, 6, 3), np.uint8), name)


def test_the_only_bundle_needs_no_name(tmp_path):
    folder = made.with_inputs(tmp_path)
    with pytest.raises(OptionError, match=r"which bundle\? there is none"):
        Session(folder).predict(np.zeros((5, 6, 3), np.uint8))
    made.add_bundle(folder, "one", "seg", SEG, made.bundle_tensors(0, 2, SEG))
    assert Session(folder).predict(np.zeros((5, 6, 3), np.uint8))["seg"].shape == (5, 6)


def test_what_a_bundle_does_not_give_is_the_graph_s_own(tmp_path):
    folder = made.with_inputs(tmp_path)
    head = made.bundle_tensors(0, 2, SEG)["head_0"]
    made.add_bundle(folder, "head", "seg", SEG, {"head_0": head})
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 7), dtype=np.uint8)
    none = {"a": np.zeros((3, 0)), "b": np.zeros((0, 3)), "head_0": head}
    np.testing.assert_allclose(Session(folder).outputs(images)["seg"], made.raw_of(none, images), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "folder"])
@pytest.mark.parametrize("spoil", ["overwrite", "cut"])
def test_a_bundle_in_use_is_not_changed_by_who_writes_over_its_file(tmp_path, monkeypatch, in_memory, spoil):
    """``cp`` writes in place: a mapped file would change predictions in silence, or end the process if it is cut."""
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    folder = made.with_inputs(tmp_path)
    tensors = made.bundle_tensors(0, 4, SEG)
    made.add_bundle(folder, "one", "seg", SEG, tensors)
    opened = Session(folder)
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 7), dtype=np.uint8)
    before = opened.outputs(images, "one")["seg"]
    file = folder / "one.onnx_adapter"
    if spoil == "overwrite":
        with file.open("r+b") as stream:
            stream.write(b"A" * file.stat().st_size)
    else:
        # where that ends the process it ends the test, and with it the suite: so this one is asked first
        assert str(file) not in Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else True
        os.truncate(file, 0)
    np.testing.assert_array_equal(opened.outputs(images, "one")["seg"], before)
    with pytest.raises(BundleError, match="is not the one that"):
        Session(folder).outputs(images, "one")


def test_a_session_opened_while_an_export_replaces_the_folder_finds_what_came(tmp_path):
    """Between the two renames of a replacement the folder has another name."""
    folder = made.with_inputs(tmp_path / "out")
    made.add_bundle(folder, "one", "seg", SEG, made.bundle_tensors(0, 2, SEG))
    folder.rename(tmp_path / ".out.replaced")
    opened = Session(folder)
    assert opened.folder == folder and opened.bundles == ("one",)
    shutil.copytree(tmp_path / ".out.replaced", folder)
    shutil.rmtree(tmp_path / ".out.replaced")
    made.add_bundle(folder, "two", "seg", SEG, made.bundle_tensors(1, 3, SEG))
    assert opened.bundles == ("one", "two")
    assert set(opened.tasks("two")) == set(opened.tasks("one")) == {"seg"}


def test_a_folder_that_is_replaced_as_it_is_read_is_read_anew(tmp_path, monkeypatch):
    folder = made.with_inputs(tmp_path / "out")
    made.add_bundle(folder, "one", "seg", SEG, made.bundle_tensors(0, 2, SEG))
    made.reseal(folder)
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    pause = iter(range(1))
    read = adapters.read_adapter_facts

    def replaced(file):
        facts = read(file)
        for _ in pause:  # the first time alone
            write_folder(folder, files)
            file.with_suffix(".onnx_adapter").unlink()
            raise BundleError("half of each")
        return facts

    monkeypatch.setattr(adapters, "read_adapter_facts", replaced)
    opened = Session(folder)
    with pytest.raises(OptionError, match="no bundle 'one'"):  # told as it is now
        opened.tasks("one")
    write_folder(folder, files)
    assert set(opened.tasks("one")) == {"seg"}


def test_tensors_of_a_bundle_agree_in_their_open_sides(tmp_path):
    folder = made.with_inputs(tmp_path)
    odd = {**made.bundle_tensors(0, 4, SEG), "b": np.ones((1, 3), np.float32)}
    made.add_bundle(folder, "one", "seg", SEG, odd)
    with pytest.raises(BundleError, match="'r' is 4 in 'a' and 1 in 'b'; export it again"):
        Session(folder).tasks("one")


def test_a_graph_without_values_for_no_adapter_is_given_every_tensor(tmp_path):
    folder = made.with_inputs(tmp_path, slots=1, no_adapter="none")
    whole = made.bundle_tensors(0, 2, SEG)
    made.add_bundle(folder, "whole", "seg", SEG, whole)
    made.add_bundle(folder, "part", "seg", SEG, {"a": whole["a"], "head_0": whole["head_0"]})
    assert Session(folder).tasks("whole")
    with pytest.raises(BundleError, match="lacks tensor 'b', which this graph has to be given"):
        Session(folder).tasks("part")


def test_threads_predict_each_with_another_bundle(several):
    """All bundles are loaded under way, by several threads at once."""
    folder, bundles = several
    opened, wrong = Session(folder, threads=1), []
    start = threading.Barrier(2 * len(bundles))

    def work(name: str, seed: int) -> None:
        slot, tensors = bundles[name]
        start.wait()
        generator = np.random.default_rng(seed)
        for _ in range(20):
            images = generator.integers(0, 256, (1, 3, *generator.integers(3, 12, 2)), dtype=np.uint8)
            wanted = made.raw_of(tensors, images, slot)
            (found,) = opened.outputs(images, name).values()
            if not np.allclose(found, wanted, rtol=1e-4, atol=1e-2):
                wrong.append(name)

    each = [threading.Thread(target=work, args=(name, seed)) for seed in range(2) for name in bundles]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert not wrong


def _bundle(folder: Path, **changes) -> None:
    tensors = changes.pop("given", made.bundle_tensors(0, 2, SEG))
    made.add_bundle(folder, "one", "seg", SEG, tensors, **changes)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: _bundle(f, graph="1" * 64), "one.json: was exported for another graph than"),
        (lambda f: _bundle(f, backbone={**made.TRUNK, "fingerprint": "1" * 64}), "was trained on another trunk"),
        (lambda f: _bundle(f, sha256="1" * 64), "one.onnx_adapter: is not the one that one.json describes"),
        (lambda f: _bundle(f, given={"c": np.zeros((3, 1), np.float32)}), "the graph takes no tensor 'c'"),
        (
            lambda f: _bundle(f, given={"a": np.zeros((4, 2), np.float32)}),
            r"tensor 'a' is \[4, 2\], the graph takes \[3",
        ),
        (lambda f: _bundle(f, given={"a": np.zeros((3, 2, 1), np.float32)}), r"tensor 'a' is \[3, 2, 1\], the graph"),
        (
            lambda f: _bundle(f, tensors={"a": {"dtype": "float32", "shape": [3, 7]}}),
            "one.onnx_adapter: tensor 'a' is not as one.json describes it",
        ),
        (lambda f: _bundle(f, given={"a": np.zeros((3, 2))}), "tensor 'a' is not as one.json describes it"),
        (lambda f: _bundle(f, tasks={}), "one.json: names no task"),
        (lambda f: _bundle(f, slot=7), "tasks.seg: output 'output_7' is not one of its own"),
        (lambda f: (_bundle(f), (f / "one.json").write_text("[]")), "one.json: is no manifest of an export"),
        (
            lambda f: (_bundle(f), made.reseal(f), _bundle(f, format=1, certificate={"a": 1})),
            "differs from what was saved",
        ),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_in_one_line(tmp_path, spoil, says):
    folder = made.with_inputs(tmp_path)
    spoil(folder)
    with pytest.raises(BundleError, match=says) as caught:
        Session(folder).predict(np.zeros((5, 6, 3), np.uint8))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_damaged_file_of_adapters_is_refused(tmp_path):
    folder = made.with_inputs(tmp_path)
    made.add_bundle(folder, "one", "seg", SEG, made.bundle_tensors(0, 2, SEG))
    cut = (folder / "one.onnx_adapter").read_bytes()[:100]
    (folder / "one.onnx_adapter").write_bytes(cut)
    facts = json.loads((folder / "one.json").read_text())
    (folder / "one.json").write_text(json.dumps({**facts, "sha256": hashlib.sha256(cut).hexdigest()}))
    with pytest.raises(BundleError, match=r"one\.onnx_adapter: cannot be opened by onnxruntime") as caught:
        Session(folder).tasks()
    assert "\n" not in str(caught.value)


def test_a_folder_whose_name_is_no_utf_8(tmp_path, picture):
    folder = made.with_inputs(tmp_path / "plain")
    made.add_bundle(folder, "one", "seg", SEG, made.bundle_tensors(0, 2, SEG))
    folder = folder.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    assert Session(folder).predict(picture)["seg"].size


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_writes_what_the_session_does(folder, session, picture, tmp_path, capsys):
    assert runtime_main([str(folder), str(picture), "--out", str(tmp_path / "maps")]) == 0
    wanted = session.predict(picture).write(tmp_path / "wanted")
    assert capsys.readouterr().out.startswith(f"{picture}: ")
    for file in wanted:
        assert (tmp_path / "maps" / file.name).read_bytes() == file.read_bytes()
    assert runtime_main([str(folder), "--json", "--tasks", "depth", "--out", str(tmp_path / "b"), str(picture)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Path(file).name for file in told[str(picture)]] == ["street_depth.png", "street_sheet.png"]


def test_the_command_lists_what_a_folder_holds(folder, several, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert runtime_main([folder.name, "--list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{folder.name}: ")  # as it was typed
    assert "by_hand, fp32, adapters merged" in out and "weights: nowhere (CC0)\n" in out
    assert "tasks: seg (Classes), depth (SoftplusDepth), normals (Directions), edges (Probabilities)" in out
    assert runtime_main([str(several[0]), "--list"]) == 0
    assert "bundle b1: depth (SoftplusDepth)" in capsys.readouterr().out
    assert runtime_main([str(several[0]), "--list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bundles"]["b0"] == {"seg": "Classes"} and told["backbone"]["licence"] == "CC0"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "the following arguments are required: FOLDER, IMAGE; see python -m garnish.runtime --help"),
        (["FOLDER"], "give pictures and --out, or --list"),
        (["FOLDER", "PICTURE", "--out", "maps", "--taks", "seg"], "unknown option '--taks'; did you mean '--tasks'"),
        (["FOLDER", "PICTURE", "--out", "maps", "--tasks", "sky"], "unknown task 'sky'"),
        (["FOLDER", "PICTURE", "--out", "maps", "--tasks", ","], "tasks is an empty list"),
        (["FOLDER", "PICTURE", "--out", "maps", "--threads", "x"], "invalid int value"),
        (["FOLDER", "gone.png", "--out", "maps"], "gone.png: no such picture"),
        (["gone", "PICTURE", "--out", "maps"], "gone: is not an exported folder"),
        (["FOLDER", "PICTURE", "--out", "PICTURE"], "is a file; choose a folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(folder, picture, words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"FOLDER": str(folder), "PICTURE": str(picture)}
    assert runtime_main([given.get(word, word) for word in words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("python -m garnish.runtime: ") and says in told and told.count("\n") == 1
    assert not Path("maps").exists()


NO_TORCH = (
    "import sys\nsys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm', 'lightning', 'safetensors')))\n"
)


def test_it_needs_no_torch(folder, picture, tmp_path):
    code = (
        f"{NO_TORCH}from garnish.runtime.command import runtime_main\n"
        f"code = runtime_main({[str(folder), str(picture), '--out', str(tmp_path / 'maps')]!r})\nsys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "maps" / "street_sheet.png").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "garnish.runtime", str(folder), str(picture), "--out", str(tmp_path / "again")],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert not done.stderr and (tmp_path / "again" / "street_depth.png").is_file()
    told = "import garnish.runtime as r, sys; r.Session; print([m for m in sys.modules if m in ('torch', 'timm')])"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_onnxruntime_it_says_what_to_install(folder):
    code = (
        "import sys\nsys.modules['onnxruntime'] = None\n"
        "import garnish.runtime\nfrom garnish.errors import MissingExtraError\n"
        f"try:\n    garnish.runtime.Session({str(folder)!r})\nexcept MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install onnxruntime" in done.stdout


def test_garnish_predict_says_the_same_of_a_picture(folder, tmp_path, capsys):
    """Both commands share what reads and names pictures."""
    assert runtime_main([str(folder), str(tmp_path / "gone.png"), "--out", str(tmp_path / "maps")]) == 2
    ours = capsys.readouterr().err.partition(": ")[2]
    assert main(["predict", "nothing", str(tmp_path / "gone.png"), "--out", str(tmp_path / "maps")]) == 2
    assert capsys.readouterr().err.partition(": ")[2] == ours


def test_a_graph_that_fails_as_it_runs_is_one_line(tmp_path):
    graph = onnx.load_model_from_string(made.merged_graph())
    (resize,) = (node for node in graph.graph.node if node.output[0] == "depth")
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 7, 7], np.int64), "other.size"))
    resize.output[0] = "right"
    graph.graph.node.append(onnx.helper.make_node("Reshape", ["right", "other.size"], ["depth"]))
    data = graph.SerializeToString()
    facts = made.facts_of(data, tasks=made.told_tasks(made.DECODINGS), outputs=list(made.DECODINGS))
    opened = Session(made.write_files(tmp_path, facts, data), threads=1)
    assert opened.predict(np.zeros((7, 7, 3), np.uint8))["depth"].shape == (7, 7)
    with pytest.raises(GarnishError, match=r"model\.onnx: onnxruntime cannot run it") as caught:
        opened.predict(np.zeros((5, 6, 3), np.uint8))
    assert "\n" not in str(caught.value)


def test_tensors_in_other_files_are_not_read(tmp_path, monkeypatch):
    """A graph may name a file of its tensors, which may be any file of the reader's."""
    monkeypatch.chdir(tmp_path)
    graph = onnx.load_model_from_string(made.merged_graph())
    (weight,) = (tensor for tensor in graph.graph.initializer if tensor.name == "seg.weight")
    for file in (tmp_path / "weights.bin", tmp_path / "folder" / "weights.bin"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for place in ("weights.bin", "../weights.bin", "../../weights.bin", str(tmp_path / "weights.bin")):
        weight.external_data.add(key="location", value=place)
        data = graph.SerializeToString()
        facts = made.facts_of(data, tasks=made.told_tasks(made.DECODINGS), outputs=list(made.DECODINGS))
        with pytest.raises(BundleError, match="cannot be opened by onnxruntime"):
            Session(made.write_files(tmp_path / "folder", facts, data))
        weight.ClearField("external_data")
