"""The command line, in process: every verb, one-line errors with exit code 2, and a tiny run from end to end."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from garnish.cli import VERBS, main

OPTIONS = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of a tiny MiT: a bundle needs some that it can name."""
    from garnish.backbones.build import backbone

    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return write_weights(file, backbone("mit_b0", options=OPTIONS))


def write_weights(file, trunk, **metadata):
    from safetensors.torch import save_file

    save_file({n: getattr(m, leaf).detach().contiguous() for n, m, leaf in trunk.named_slots()}, file, metadata or None)
    return file


def write_pictures(root: Path, split: str, count: int, size: tuple[int, int] = (40, 48)) -> None:
    """Pictures whose red channel tells the class, with ids 0, 1 and a saliency map."""
    rng = np.random.default_rng(len(split))
    for kind in ("images", "ids", "fg"):
        (root / kind / split).mkdir(parents=True)
    for number in range(count):
        ids = (rng.random((size[0] // 8, size[1] // 8)) > 0.5).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        picture[..., 0] = ids * 255
        Image.fromarray(picture).save(root / "images" / split / f"p{number}.png")
        Image.fromarray(ids).save(root / "ids" / split / f"p{number}.png")
        Image.fromarray(ids * 255).save(root / "fg" / split / f"p{number}.png")


@pytest.fixture
def pictures(tmp_path, weights):
    root = tmp_path / "pictures"
    write_pictures(root, "train", 6)
    write_pictures(root, "val", 2)
    write_pictures(root, "test", 3)
    head = f"path: {root}\nimages: images/{{split}}/*.png\n"
    (tmp_path / "seg.yaml").write_text(
        head + "tasks: {seg: {task: Semantic, labels: 'ids/{split}/{name}.png', classes: [low, high]}}\n"
    )
    (tmp_path / "fg.yaml").write_text(
        head + "tasks: {fg: {task: Saliency, labels: 'fg/{split}/{name}.png', threshold: 127}}\n"
    )
    for name in ("seg", "fg"):
        (tmp_path / f"train_{name}.yaml").write_text(
            f"backbone: {{name: mit_b0, weights: {weights}, options: {json.dumps(OPTIONS)}}}\n"
            f"adapter: {{name: LoRA, rank: 2}}\nhead: LinearHead\ndata: {name}.yaml\n"
            "train: {steps: 3, batch_size: 2, lr: 1e-3, eval_every: 3, log: []}\n"
            f"out: {tmp_path}/runs/{name}\n"
        )
    return tmp_path


def fails(capsys, *words: str, code: int = 2) -> str:
    """The one line that a command fails with."""
    assert main([str(w) for w in words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("garnish: ") and err.count("\n") == 1, err
    return err


def processor_seconds_of_children() -> float:
    """Not the clock's: other processes of a busy machine do not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_quick_and_without_torch():
    code = (
        "import sys\nfrom garnish.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert not end.code\n"
        "for verb in sys.argv[1:]:\n"
        "    try: main([verb, '--help'])\n    except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *VERBS], check=True, capture_output=True)
    took = []
    for _ in range(3):
        start = processor_seconds_of_children()
        out = subprocess.run([sys.executable, "-m", "garnish", "--help"], check=True, capture_output=True, text=True)
        took.append(processor_seconds_of_children() - start)
    assert all(verb in out.stdout for verb in VERBS)
    assert min(took) < 0.5, took


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_page_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"garnish {verb}" in out.split("example")[1]


def test_without_words_there_is_help(capsys):
    assert main([]) == 0
    assert "verbs:" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    first = capsys.readouterr().out
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["garnish"] in first


def test_versions_for_a_report_of_a_fault(capsys):
    import torch

    import garnish as gn

    assert main(["version", "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in (
        "transformers",
        "peft",
        "numpy",
        "pillow",
        "huggingface_hub",
        "system",
        "devices",
        "threads",
        "extras",
    ):
        assert found[name], name
    assert found["numpy"] == np.__version__ and torch.__version__.startswith(found["torch"])
    gn.show_versions()
    assert f"numpy {np.__version__}\n" in capsys.readouterr().out


def test_methods_lists_what_exists(capsys):
    assert main(["methods", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"adapters", "heads", "tasks", "balancing", "readers", "layouts", "annotations", "backbones"}
    assert {"LoRA", "Frozen"} <= set(found["adapters"]) and "mit_b0" in found["backbones"]
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert "rank=8" in shown and "SegFormerHead" in shown


def test_info_of_a_backbone_counts_what_is_trained(capsys):
    words = ["info", "mit_b0", "--size", "64,64", "--json"]
    assert main([*words, "--adapter", "LoRA", "--adapter.rank", "4", "--adapter.layers", "[q]"]) == 0
    found = json.loads(capsys.readouterr().out)
    # MiT-B0's query layers are square: two blocks each of width 32, 64, 160 and 256
    assert found["encoder_trainable"] == 4 * 2 * 2 * (32 + 64 + 160 + 256)
    assert found["encoder_total"] == 3_319_392
    assert found["macs_size"] == [64, 64] and found["backbone_non_commercial"] is False
    assert main([*words, "--tasks", "seg=Semantic,depth=Depth", "--tasks.seg.classes", "5"]) == 0
    bare = json.loads(capsys.readouterr().out)
    assert bare["encoder_trainable"] == 0 and set(bare["decoder_by_task"]) == {"seg", "depth"}
    keys = {"encoder_total", "encoder_trainable", "decoder_trainable", "bundle_bytes", "macs", "backbone_licence"}
    assert keys <= set(bare)


def test_the_licence_of_non_commercial_weights_is_stated(tmp_path, capsys):
    from garnish.backbones.build import backbone

    file = write_weights(tmp_path / "model.safetensors", backbone("mit_b0"), license="CC BY-NC 4.0")
    assert main(["info", "mit_b0", "--weights", str(file), "--size", "64,64"]) == 0
    out = capsys.readouterr().out
    assert "CC BY-NC 4.0" in out and "warning: the backbone's weights are non-commercial" in out
    assert "--weights" not in out
    assert main(["info", "mit_b0", "--size", "64,64"]) == 0
    assert "none (random weights); for that of weights: --weights true or FILE" in capsys.readouterr().out


def test_a_run_from_end_to_end(pictures, capsys):
    (runs := pictures / "runs").mkdir()
    assert (
        main(["train", "--config", str(pictures / "train_seg.yaml"), "--adapter.rank", "3", "--json", "--quiet"]) == 0
    )
    reached = json.loads(capsys.readouterr().out)
    best = runs / "seg" / "best"
    assert reached["steps"] == 3 and Path(reached["best"]) == best
    assert "rank: 3" in (runs / "seg" / "args.yaml").read_text()
    assert json.loads((best / "bundle.json").read_text())["extra"]["recipe"]["adapter"]["rank"] == 3

    data = str(pictures / "seg.yaml")
    assert main(["eval", str(best), "--data", data, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert 0 <= whole["seg"]["miou"] <= 1
    assert main(["eval", str(best), "--data", data, "--split", "train", "--every", "2", "--limit", "2"]) == 0
    shown = capsys.readouterr().out
    assert "2 of 6 pictures" in shown and "miou *" in shown

    # what the last checkpoint was reached with is what its recipe says, so a finished run resumes to the same
    assert main(["train", "--resume", str(runs / "seg"), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == reached["metrics"]

    words = ["train", "--config", str(pictures / "train_fg.yaml"), "--onto", str(best), "--train.log_every", "1"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    both = runs / "fg" / "best"
    assert f"bundle: {both}" in out and "fg" in err
    assert main(["eval", str(both), "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == whole  # the old task is as it was

    image = pictures / "pictures" / "images" / "test" / "p0.png"
    out_folder = pictures / "maps"
    assert main(["predict", str(both), str(image), "--out", str(out_folder), "--json"]) == 0
    files = [Path(f) for f in json.loads(capsys.readouterr().out)[str(image)]]
    assert {f.name for f in files} == {"p0_seg.png", "p0_fg.png", "p0_sheet.png"}
    assert np.asarray(Image.open(out_folder / "p0_seg.png")).shape == (40, 48)
    # pictures of one name, from two folders, do not overwrite each other
    words = ["predict", str(best), str(image.parent), str(image.parents[1] / "val"), "--out", str(pictures / "more")]
    assert main(words) == 0
    assert len(list((pictures / "more").glob("*_seg.png"))) == 5
    assert capsys.readouterr().out.count("\n") == 5

    assert main(["info", str(both), "--json", "--size", "64,64"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["tasks"]) == {"seg", "fg"} and told["backbone"] == "mit_b0" and told["encoder_trainable"] > 0
    assert told["bundle_bytes"] == (both / "weights.safetensors").stat().st_size
    assert main(["info", str(best)]) == 0
    assert "miou" in capsys.readouterr().out

    # a file that is no picture is named at the end, and the others have their maps
    odd = pictures / "pictures" / "images" / "test" / "q.png"
    odd.write_bytes(b"no picture")
    assert main(["predict", str(best), str(odd), str(image), "--out", str(pictures / "some")]) == 1
    told = capsys.readouterr().err
    assert "1 of 2 pictures not predicted:" in told and f"{odd}: damaged or not a picture" in told
    assert {file.name for file in (pictures / "some").iterdir()} == {"p0_seg.png", "p0_sheet.png"}
    odd.unlink()

    # a run where a bundle is wanted, and what lies in a run where that is wanted
    run = best.parent
    for verb in (["info"], ["eval", "--data", data], ["predict", image, "--out", out_folder]):
        assert f"{run}: is not a bundle (it holds no bundle.json); did you mean {best}?" in fails(
            capsys, verb[0], run, *verb[1:]
        )
    (pictures / "graph").mkdir()
    (pictures / "graph" / "export.json").write_text("{}")
    assert "python -m garnish.runtime predicts from it" in fails(capsys, "info", pictures / "graph")
    (pictures / "recipe.yaml").write_text("{backbone: garnish_b0, data: {images: 'a/*.png'}}")
    assert "recipe.yaml: is a recipe and no data set" in fails(capsys, "check", "--data", pictures / "recipe.yaml")
    assert "or own, or train" in fails(capsys, "predict", best, image, "--out", out_folder, "--size", 100)
    assert "--tile: 8 pixels; windows have 16" in fails(
        capsys, "predict", best, image, "--out", out_folder, "--tile", 8
    )
    assert f"it is a file); did you mean {best}?" in fails(capsys, "info", best / "bundle.json")
    for inside in ("best", "args.yaml", "last/state.safetensors", "nope"):
        line = fails(capsys, "train", "--resume", run / inside)
        assert f"{run / inside}: " in line and line.endswith(f"; give the run's folder, {run}\n")
    line = fails(capsys, "train", "--resume", run.parent)
    assert line.endswith("holds no checkpoint (last/state.safetensors); give the run's folder\n")

    # a damaged bundle is refused by info as well
    weights = (both / "weights.safetensors").read_bytes()
    (both / "weights.safetensors").write_bytes(weights + b" ")
    assert "weights.safetensors: differs from what was saved" in fails(capsys, "info", both)
    (both / "weights.safetensors").write_bytes(weights)

    # joining: two bundles, one command; the same task twice is refused
    assert "seg" in fails(capsys, "eval", f"{best},{both}", "--data", data)
    (best / "weights.safetensors").write_bytes(b"broken")
    assert "weights.safetensors" in fails(capsys, "predict", best, image, "--out", out_folder)
    (best / "bundle.json").write_text("{")
    assert "bundle.json" in fails(capsys, "info", best)


def test_check_reports_and_exits_with_1(pictures, capsys):
    data = str(pictures / "seg.yaml")
    assert main(["check", "--data", data]) == 0
    assert "6 of 6 pictures" in capsys.readouterr().out
    bad = pictures / "pictures" / "ids" / "train" / "p3.png"
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(bad)
    assert main(["check", "--data", data, "--json"]) == 1
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert len(errors) == 1 and str(bad) in errors[0] and "7" in errors[0]


def test_bad_labels_stop_a_run_before_its_first_step(pictures, capsys):
    config = pictures / "train_seg.yaml"
    labels = pictures / "pictures" / "ids" / "train"
    image = pictures / "pictures" / "images" / "train" / "p1.png"
    kept = (labels / "p1.png").read_bytes(), image.read_bytes()
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(labels / "p1.png")
    line = fails(capsys, "train", "--config", config)
    assert str(labels / "p1.png") in line and "9" in line and "ignore" in line
    Image.fromarray(np.zeros((20, 48), np.uint8)).save(labels / "p1.png")
    assert "48x20" in fails(capsys, "train", "--config", config)
    (labels / "p1.png").write_bytes(kept[0])
    image.write_bytes(b"no picture")
    assert str(image) in fails(capsys, "train", "--config", config)
    image.write_bytes(kept[1])
    assert not (pictures / "runs").exists()  # nothing half-written


def test_mistakes_in_words(pictures, capsys):
    config = pictures / "train_seg.yaml"
    assert "'train'" in fails(capsys, "trian")
    assert "--config" in fails(capsys, "train", "--confg", config)
    assert "no recipe" in fails(capsys, "train")
    assert "none.yaml: cannot be read" in fails(capsys, "train", "--config", pictures / "none.yaml")
    assert "nowhere: no such folder; give the run's folder" in fails(capsys, "train", "--resume", pictures / "nowhere")
    line = fails(capsys, "train", "--config", config, "--adapter.rnak", "8")
    assert "--adapter.rnak" in line and "did you mean 'rank'" in line
    line = fails(capsys, "train", "--config", config, "--adapter", "Lora")
    assert "did you mean 'LoRA'" in line and "Houlsby" in line
    line = fails(capsys, "train", "--config", config, "--backbone", "mit_b9")
    assert "'mit_b9'" in line and "did you mean 'mit_b" in line
    line = fails(capsys, "train", "--config", config, "--backbone", "mit_b0")
    assert "without weights is random" in line and "backbone.weights" in line
    line = fails(capsys, "train", "--config", config, "--backbone.weights", "gone.safetensors")
    assert "gone.safetensors" in line and "no such weights file" in line
    assert "no such bundle" in fails(capsys, "train", "--config", config, "--onto", pictures / "gone")
    assert "rank 999" in fails(capsys, "train", "--config", config, "--adapter.rank", "999")
    assert "'dpth'" in fails(capsys, "train", "--config", config, "--tasks", "dpth")
    assert "--data is missing" in fails(capsys, "eval", "x")
    assert "cannot be read" in fails(capsys, "eval", "x", "--data", pictures / "gone.yaml")
    assert "no such bundle" in fails(capsys, "eval", pictures / "gone", "--data", pictures / "seg.yaml")
    assert "split 'vall'" in fails(capsys, "check", "--data", pictures / "seg.yaml", "--split", "vall")
    assert "no such picture" in fails(capsys, "predict", "x", "gone.jpg", "--out", pictures / "maps")
    assert "--out" in fails(capsys, "predict", "x", "gone.jpg")
    assert "not a whole number" in fails(capsys, "check", "--data", "scenes", "--limit", "few")
    assert "did you mean 'mit_b0'" in fails(capsys, "info", "mitb0")
    assert "keys of a section: --SECTION.KEY" in fails(capsys, "train", "--config", "any.yaml", "--steps", "2")
    assert "224,280" in fails(capsys, "info", "mit_b0", "--size", "224")
    assert "'classes' is required" in fails(capsys, "info", "mit_b0", "--tasks", "seg=Semantic")
    assert not (pictures / "runs").exists()


def test_an_empty_split_is_named(pictures, capsys):
    for file in (pictures / "pictures" / "images" / "train").iterdir():
        file.unlink()
    line = fails(capsys, "train", "--config", pictures / "train_seg.yaml")
    assert "'train' is empty" in line and "seg.yaml" in line


def test_what_we_did_not_foresee_is_one_line_too(monkeypatch, capsys):
    import garnish.commands.version as verb

    def broken(words):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(verb, "run", broken)
    line = fails(capsys, "version", code=1)
    assert "RuntimeError: first line second line" in line and "--debug" in line
    assert main(["version", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err

    def full(words):
        raise OSError(28, "No space left on device", "maps/x.png")

    monkeypatch.setattr(verb, "run", full)
    assert fails(capsys, "version") == "garnish: maps/x.png: No space left on device; free some space\n"

    def stopped(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "run", stopped)
    assert main(["version"]) == 130
