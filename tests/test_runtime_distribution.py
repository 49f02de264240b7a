"""``garnish-runtime``: the files that its wheel holds, and the steps of its Dockerfile where there is no torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import exported_folders as made
import garnish
from garnish.errors import GarnishError
from garnish.runtime import Session

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "garnish"
HERE = ROOT / "runtime"
#: imports inside functions that a runtime never calls
NEVER_CALLED = {("output.py", "rich")}


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))


def listed() -> dict[str, str]:
    """File (of the repository, below ``src/garnish``) → the same in the wheel."""
    chosen = project(HERE)["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    found = {}
    for source, target in chosen.items():
        path = HERE / source
        files = (
            [f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts] if path.is_dir() else [path]
        )
        for file in files:
            found[os.path.normpath(file)] = os.path.normpath(Path(target, file.relative_to(path)))
    return found


def modules() -> dict[str, Path]:
    found = {}
    for file in SRC.rglob("*.py"):
        parts = ("garnish", *file.relative_to(SRC).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(file: Path) -> set[str]:
    """Dotted names that a file imports, anywhere; not for types alone."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update((str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)))
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(file.read_text("utf-8")))
    return found


def needed() -> set[Path]:
    """The files that ``garnish.runtime`` and all decodings import, directly or not."""
    known = modules()
    ahead, found = [name for name in known if name.startswith(("garnish.runtime", "garnish.decodings"))], set()
    while ahead:
        name = ahead.pop()
        if name in found or name not in known:
            continue
        found.add(name)
        ahead += [name.rpartition(".")[0], *imported(known[name])]
    return {known[name] for name in found}


def test_the_wheel_holds_what_is_imported_and_no_file_more():
    python = {Path(file) for file in listed() if file.endswith(".py")}
    assert python == needed()
    others = {Path(file).name for file in listed() if not file.endswith(".py")}
    assert others == {"LICENSE", "py.typed", "moved.txt", "viridis.png"}
    for file, target in listed().items():
        assert Path(file).is_file() and (file.endswith("LICENSE") or ROOT / "src" / target == Path(file))


def test_its_files_import_nothing_but_its_dependencies():
    names = {"numpy": "numpy", "PIL": "pillow", "onnxruntime": "onnxruntime"}
    extras = {"imagecodecs": "imagecodecs", "rasterio": "rasterio", "av": "av"}  # some kinds of TIFF, videos
    outside = set()
    for file in needed():
        for name in {dotted.partition(".")[0] for dotted in imported(file)} - {"garnish"} - sys.stdlib_module_names:
            if (file.relative_to(SRC).as_posix(), name) not in NEVER_CALLED:
                outside.add((names | extras)[name])
    asked, offered = project(HERE)["project"]["dependencies"], project(HERE)["project"]["optional-dependencies"]
    assert {text.partition(">=")[0] for text in asked} == outside - set(extras)
    assert {text.partition(">=")[0] for held in offered.values() for text in held} == outside & set(extras)
    whole = project(ROOT)["project"]["dependencies"]
    assert {text for text in asked if not text.startswith("onnxruntime")} <= set(whole)


def test_the_dockerfile_has_twelve_lines():
    assert len((HERE / "Dockerfile").read_text("utf-8").splitlines()) == 12


def test_two_versions_over_each_other_are_refused(tmp_path, monkeypatch):
    folder = made.merged(tmp_path)
    there = {"garnish": "0.1.0", "garnish-runtime": "0.1.0"}
    monkeypatch.setattr("garnish.runtime.installed.version", there.__getitem__)
    Session(folder)
    there["garnish-runtime"] = "0.2.0"
    with pytest.raises(
        GarnishError, match=r"garnish 0\.1\.0 and garnish-runtime 0\.2\.0 are installed over each other"
    ):
        Session(folder)


def steps() -> list[tuple[str, list[str]]]:
    """(instruction, words) of the Dockerfile."""
    lines = (HERE / "Dockerfile").read_text("utf-8").splitlines()
    return [(kind, rest) for kind, *rest in (line.split() for line in lines if not line.startswith("#"))]


@pytest.mark.slow
def test_its_steps_make_an_environment_without_torch_that_predicts(tmp_path):
    """Without Docker: each stage is an environment, and the image's paths lie below a folder."""
    root = tmp_path / "image"
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    entry: list[str] = []
    stage = 0

    def inside(path: str) -> str:
        return str(root) + path if path.startswith("/") else path

    def run(words: list[str], **how) -> subprocess.CompletedProcess:
        program, *rest = words
        done = subprocess.run(
            [tmp_path / f"stage{stage}" / "bin" / program, *rest], env=clean, capture_output=True, text=True, **how
        )
        assert done.returncode == 0, done.stderr
        return done

    for kind, words in steps():
        if kind == "FROM":
            stage += 1
            assert words[0].startswith("python:3.")
            subprocess.run([sys.executable, "-m", "venv", tmp_path / f"stage{stage}"], check=True)
        elif kind == "COPY":
            source, target = ROOT / words[0], Path(inside(words[1]))
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", source, target], check=True)
        elif kind == "RUN":
            words = [word for word in words if not word.startswith("--mount=")]
            found = [
                str(file)
                for word in map(inside, words)
                for file in (Path(word).parent.glob("*.whl") if word.endswith("*.whl") else [word])
            ]
            run(found)
        elif kind == "ENTRYPOINT":
            entry = list(ast.literal_eval(" ".join(words)))
        else:
            assert kind in ("WORKDIR", "USER")

    site = next((tmp_path / f"stage{stage}" / "lib").glob("python*")) / "site-packages"
    assert not [path for path in site.iterdir() if path.name.startswith(("torch", "timm", "pandas", "rich"))]
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    print(f"installed: {size / 1e6:.0f} MB")
    assert size < 250e6
    run(["pip", "check"])
    pixels = np.random.default_rng(0).integers(0, 256, (23, 37, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    folder = made.merged(tmp_path / "exported")
    run([*entry, "exported", "street.png", "--out", "maps"], cwd=tmp_path)
    for file in Session(folder).predict(tmp_path / "street.png").write(tmp_path / "here"):
        there = np.asarray(Image.open(tmp_path / "maps" / file.name))  # by their pixels: Pillow may be another
        assert (there == np.asarray(Image.open(file))).mean() > 0.999
    code = "import garnish\ntry:\n    garnish.load\nexcept ImportError as error:\n    print(garnish.__version__, error)"
    told = run(["python", "-c", code]).stdout
    assert told.startswith(f"{garnish.__version__} garnish.load is not in garnish-runtime, which is what is installed;")
