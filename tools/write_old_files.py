"""Writes the kind of files that lie in ``tests/old_files``: what users keep, which later versions must go on reading.

    python tools/write_old_files.py FOLDER             # everything, by the garnish that is imported
    python tools/write_old_files.py FOLDER first       # what the first version that saved could write, by that version
    python tools/write_old_files.py FOLDER record      # what is made of the files in FOLDER, by the garnish imported

Files that are there stay: a new format gets files of its own beside the old ones. Only what users call is used, so that
old trees run this too (PYTHONPATH=OLD/src).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

import garnish as gn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import old_files_cases as cases  # noqa: E402

SEG, DEPTH = {"classes": 3}, {"max_metres": 5.0}
#: the bundles of one trunk, joined
JOINED = ("vit_lora", "vit_prompts", "vit_side")


# ---- bundles ----------------------------------------------------------------------------------------------------


def trunk(short: str, **given: Any) -> Any:
    about = cases.trunks()[short]
    return gn.backbone(about["name"], f"trunks/{short}.safetensors", options=about["options"], **given)


def vit_lora() -> Any:
    """A LoRA that two tasks share, and an owner that also tunes the trunk in place."""
    model = gn.adapt(trunk("vit"), gn.LoRA(rank=2), {"seg": gn.Semantic(**SEG), "depth": gn.Depth(**DEPTH)})
    model.add([gn.LoRA(rank=1, rs=True, layers=("fc1", "proj")), gn.NormTuning()], {"normals": gn.Normals()})
    return model


def vit_prompts() -> Any:
    """Prompts of each task's own."""
    tasks = {"saliency": gn.Saliency(), "edges": gn.Edges()}
    return gn.adapt(trunk("vit"), gn.VPT(prompts=2, per_task=True), tasks)


def vit_side() -> Any:
    """A side network."""
    return gn.adapt(trunk("vit"), gn.SideTuning(reduction=4.0), {"parts": gn.Semantic(classes=4)})


def swin_mtlora() -> Any:
    """Parts of tasks, tuned extras, maps after merging, and a decoder of both tasks."""
    tasks = {"seg": gn.Semantic(**SEG), "normals": gn.Normals()}
    return gn.adapt(trunk("swin", taps="merged"), gn.MTLoRA(rank=2, task_rank=1), tasks, gn.DeMT(channels=8))


def mit_polyhistor() -> Any:
    """A network that writes all adapters' weights; heads with running statistics."""
    tasks = {"seg": gn.Semantic(**SEG), "depth": gn.Depth(**DEPTH)}
    method = gn.PolyhistorLite(rank=2, embedding=4, hidden=8)
    return gn.adapt(trunk("mit"), method, tasks, {"seg": gn.SegFormerHead(channels=8), "depth": gn.LinearHead()})


def convnext_vmt() -> Any:
    """Streams of tasks, a decoder that starts from a shared base, and an owner that begins in the second block."""
    tasks = {"seg": gn.Semantic(**SEG), "depth": gn.Depth(**DEPTH)}
    model = gn.adapt(trunk("convnext"), gn.VMTAdapter(reduction=8.0), tasks, gn.SharedBaseHead(channels=8))
    late = gn.LoRA(rank=2, layers=("stages.2.blocks.0.mlp.fc1", "stages.3.blocks.0.mlp.fc2"))
    model.add(late, {"saliency": gn.Saliency()})
    return model


def first_mit_lora() -> Any:
    """What the first version that saved had: LoRA, linear and SegFormer heads."""
    model = gn.adapt(
        trunk("mit"),
        gn.LoRA(rank=2),
        {"seg": gn.Semantic(**SEG), "depth": gn.Depth(**DEPTH)},
        {"seg": gn.SegFormerHead(channels=8), "depth": gn.LinearHead()},
    )
    model.add([gn.Houlsby(reduction=4.0)], {"normals": gn.Normals()})
    return model


BUNDLES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "vit_lora": (vit_lora, {"metrics": {"seg": {"miou": 0.5, "accuracy": float("nan")}, "depth": {"rmse": 1.25}}}),
    "vit_prompts": (vit_prompts, {}),
    "vit_side": (vit_side, {"dtype": "float32", "extra": {"note": "none", "numbers": [1, 2.5]}}),
    "swin_mtlora": (swin_mtlora, {"metrics_rounding": {"seg": {"miou": -1e-4}}}),
    "mit_polyhistor": (mit_polyhistor, {}),
    "convnext_vmt": (convnext_vmt, {"dtype": "float32"}),
}
FIRST: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {"first_mit_lora": (first_mit_lora, {})}


def write_bundles(made: Mapping[str, tuple[Callable[[], Any], dict[str, Any]]]) -> None:
    for name, (build, options) in made.items():
        if not (Path("bundles") / name).exists():
            torch.manual_seed(0)
            model = build()
            cases.move(model)
            gn.save(model.eval(), f"bundles/{name}", **options)


def write_peft() -> None:
    """LoRA with heads, as a folder of PEFT's."""
    if not Path("peft").exists():
        torch.manual_seed(0)
        tasks = {"seg": gn.Semantic(**SEG), "depth": gn.Depth(**DEPTH)}
        methods = [gn.LoRA(rank=2), gn.LoRA(rank=1, alpha=2.0, layers=("proj", "fc2"))]
        model = gn.adapt(trunk("vit"), methods, tasks)
        cases.move(model)
        gn.export_peft(model.eval(), "peft", dialect="timm")


# ---- a run that was stopped -------------------------------------------------------------------------------------


def garnish(*words: str) -> str:
    """One command's standard output; anything but success is an error, and so is 143 but for a run that is stopped."""
    done = subprocess.run(
        [sys.executable, __file__, "--command", *words], capture_output=True, text=True, check=False, env=os.environ
    )
    if done.returncode not in (0, 143):
        raise SystemExit(f"garnish {' '.join(words)}: {done.stderr}")
    return done.stdout


def write_run(name: str) -> None:
    """The folder of a run that SIGTERM ended after two of four steps."""
    if not Path(name).exists():
        garnish("stop", name, "train", "--config", f"recipes/{name}.yaml", "--quiet")
        for file in (Path(name) / ".lock", Path(name) / "last/earlier.safetensors"):
            file.unlink(missing_ok=True)


def command(words: Sequence[str]) -> int:
    """``garnish WORDS``; after ``stop RUN``, SIGTERM comes with the first training picture after an evaluation."""
    from garnish.cli import main

    if words[0] == "stop":
        best, words, real = Path(words[1]) / "best/bundle.json", words[2:], Image.open

        def opened(file: Any, *rest: Any, **given: Any) -> Any:
            if best.is_file() and "rgb/train" in str(file if isinstance(file, Path) else file.name):
                os.kill(os.getpid(), signal.SIGTERM)
            return real(file, *rest, **given)

        Image.open = opened
    return main(list(words))


# ---- what is made of the files ----------------------------------------------------------------------------------


def mix_of(tasks: Sequence[str]) -> list[list[str]]:
    """What each of three pictures wants: the last task; all but the first, or that one; every second."""
    return [[tasks[-1]], list(tasks[1:] or tasks), list(tasks[::2])]


def record(folder: Path) -> None:
    Path("expected").mkdir(exist_ok=True)
    bundles = sorted(path.name for path in Path("bundles").iterdir())
    for name in bundles:
        note_outputs(name, gn.load(f"bundles/{name}"))
    note_outputs("joined", gn.load([f"bundles/{name}" for name in JOINED]))
    note_outputs("peft", gn.import_peft("peft"))
    note_predicted()
    note("info", {name: told(f"bundles/{name}") for name in bundles})
    note("recipes", {name: recipe(f"recipes/{name}.yaml") for name in ("all", "onto")})
    for name in ("run", "first_run"):
        if not Path(f"expected/{name}.json").exists():
            shutil.copytree(name, f"{name}_kept")
            reached = resumed(name)
            names, values = cases.ends(load_file(f"{name}/last/state.safetensors"))
            note(name, reached | {"tensors": names})
            save_file({"ends": values}, f"expected/{name}.safetensors")
            shutil.rmtree(name)
            Path(f"{name}_kept").rename(name)
    shutil.copytree("expected", folder / "expected", dirs_exist_ok=True)


def note(name: str, found: Any) -> None:
    file = Path(f"expected/{name}.json")
    former = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**found, **former}, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def note_outputs(name: str, model: Any) -> None:
    if not Path(f"expected/{name}.safetensors").exists():
        save_file(cases.outputs(model, mix_of(list(model.tasks))), f"expected/{name}.safetensors")


def note_predicted() -> None:
    """The files that ``garnish predict`` writes for a picture, of two bundles at once."""
    if not Path("expected/predicted.safetensors").exists():
        garnish("predict", ",".join(f"bundles/{name}" for name in JOINED), "picture0.png", "--out", "maps")
        maps = {
            file.stem: cases.opened(file) for file in sorted(Path("maps").glob("*.png")) if "sheet" not in file.stem
        }
        save_numpy(maps, "expected/predicted.safetensors")


def told(bundle: str) -> dict[str, Any]:
    """``garnish info``, but for the versions that wrote the bundle."""
    found: dict[str, Any] = json.loads(garnish("info", bundle, "--json"))
    del found["versions"]
    return found


def recipe(file: str) -> dict[str, Any]:
    """Every option as it is read, and the model that is built: its report, its tensors' names and shapes."""
    from garnish.comparing.compare_options import read_options
    from garnish.recipes.recipe import read_recipe

    read = read_recipe(file)
    model = read.build(read.open("train"))
    compare = read.plain.get("compare")
    return json.loads(
        json.dumps(
            {
                "resolved": read.resolved(),
                "compare": None if compare is None else dataclasses.asdict(read_options(compare, {})),
                "report": model.report((64, 64)),
                "tensors": {name: list(tensor.shape) for name, tensor in model.own_tensors().items()},
                "trained": sorted(model.trained_parameters()),
            }
        )
    )


def resumed(name: str) -> dict[str, Any]:
    """What the run reached when it went on, as ``garnish train --resume`` tells it, and its log's rows."""
    reached = json.loads(garnish("train", "--resume", name, "--json", "--quiet"))
    rows = (Path(name) / "log/scalars.csv").read_text().splitlines()
    return {
        "metrics": reached["metrics"],
        "best_step": reached["best_step"],
        "scalars": rows,
        "results": (Path(name) / "results.csv").read_text().splitlines(),
    }


def main(words: Sequence[str]) -> int:
    if words[:1] == ["--command"]:
        torch.set_num_threads(1)
        return command(words[1:])
    folder, *parts = words
    with tempfile.TemporaryDirectory() as work:
        cases.unpack(Path(work))
        shutil.copytree(folder, work, dirs_exist_ok=True)
        os.chdir(work)
        if "first" in parts:
            write_bundles(FIRST)
            write_run("first_run")
        if not parts:
            write_bundles(BUNDLES)
            write_peft()
            write_run("run")
        for name in ("bundles", "peft", "run", "first_run"):
            if Path(name).exists():
                shutil.copytree(name, Path(folder) / name, dirs_exist_ok=True)
        if not parts or "record" in parts:
            record(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
