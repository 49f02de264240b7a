"""Build the wheel and the source archive, look into them, and try the wheel in fresh environments: ``make package``.

One row is printed for each Python: what was installed, how many modules could be imported, and whether a model was
trained, saved, loaded and asked. Nothing of the checkout is reachable there, and only declared dependencies are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
#: What the source archive has beside ``src``.
BESIDE = {"README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml"}
#: What build tools write into it.
WRITTEN = {"PKG-INFO", ".gitignore"}

SMOKE = """
import importlib, json, pkgutil, sys
import garnish, garnish as gn
assert "torch" not in sys.modules
extras, imported, left_out = set(sys.argv[1].split()), 0, set()
for info in pkgutil.walk_packages(garnish.__path__, "garnish."):
    if info.name.endswith(".__main__"):
        continue
    try:
        importlib.import_module(info.name)
        imported += 1
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in extras:
            raise
        left_out.add(info.name)
data = gn.Scenes(2, size=64, tasks=("seg", "depth"))
model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), data.tasks)
gn.fit(model, data, data, steps=2, batch_size=2, out="run", progress=False)
maps = gn.load("run/best").predict(data[0].image)
written = maps.write("maps")
assert set(maps.maps) == {"seg", "depth"} and all(path.stat().st_size for path in written)
import numpy, timm, torch
print(json.dumps({"python": sys.version.split()[0], "torch": torch.__version__, "timm": timm.__version__,
    "numpy": numpy.__version__, "modules": imported, "need an extra": len(left_out)}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", help="versions or paths of interpreters (default: this one)")
    parser.add_argument("--least", action="store_true", help="once more with the least versions that are allowed")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for both files")
    given = parser.parse_args()
    wheel, archive = build(given.out)
    wrong = [*of_wheel(wheel), *of_archive(archive)]
    print(*wrong or [f"{wheel.name}, {archive.name}: they hold what they should"], sep="\n")
    if wrong:
        return 1
    print("| Python | versions | torch | timm | numpy | modules imported | need an extra |", "|---" * 7 + "|", sep="\n")
    for python in given.pythons or [sys.executable]:
        for resolution in ("highest", *(["lowest-direct"] if given.least else [])):
            row = tried(wheel, python, resolution)
            which = "newest" if resolution == "highest" else "least"
            cells = [
                row["python"],
                which,
                row["torch"],
                row["timm"],
                row["numpy"],
                row["modules"],
                row["need an extra"],
            ]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return 0


def build(out: Path) -> tuple[Path, Path]:
    """The wheel, made from the source archive, and the archive; warnings are errors."""
    with tempfile.TemporaryDirectory() as folder:
        told = run([UV, "build", "--out-dir", folder, ROOT])
        if "warn" in told.lower():
            raise SystemExit(f"the build warns:\n{told}")
        out.mkdir(parents=True, exist_ok=True)
        made = [Path(shutil.move(path, out / path.name)) for path in sorted(Path(folder).glob("garnish-*"))]
    archive, wheel = sorted(made, key=lambda path: path.suffix == ".whl")
    return wheel, archive


def tracked(*below: str) -> set[str]:
    """Files of the repository."""
    return set(run(["git", "-C", ROOT, "ls-files", *below]).split())


def of_wheel(wheel: Path) -> list[str]:
    """What the wheel holds or lacks that it should not."""
    expected = {name.removeprefix("src/") for name in tracked("src")}
    with zipfile.ZipFile(wheel) as held:
        names = set(held.namelist())
        bodies = {name: held.read(name) for name in names}
    own = {name for name in names if ".dist-info/" in name}
    told = differing(wheel.name, names - own, expected)
    known = {name.partition(".dist-info/")[2] for name in own}
    if known != {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}:
        told.append(f"{wheel.name}: beside the package it has {', '.join(sorted(known))}")
    return told + places(wheel.name, bodies)


def of_archive(archive: Path) -> list[str]:
    """Likewise of the source archive."""
    with tarfile.open(archive) as held:
        files = [entry for entry in held.getmembers() if entry.isfile()]
        bodies = {entry.name.partition("/")[2]: held.extractfile(entry).read() for entry in files}  # type: ignore[union-attr]
    return differing(archive.name, set(bodies) - WRITTEN, tracked("src") | BESIDE) + places(archive.name, bodies)


def differing(what: str, found: set[str], expected: set[str]) -> list[str]:
    more, less = sorted(found - expected), sorted(expected - found)
    return [f"{what}: {name} should not be there" for name in more] + [f"{what}: {name} is missing" for name in less]


def places(what: str, bodies: dict[str, bytes]) -> list[str]:
    """Files that name a folder of this machine."""
    secret = [str(place).encode() for place in (ROOT, Path.home()) if len(place.parts) > 1]
    return [
        f"{what}: {name} names a folder of this machine"
        for name, b in sorted(bodies.items())
        if any(s in b for s in secret)
    ]


def tried(wheel: Path, python: str, resolution: str) -> dict[str, object]:
    """Install the wheel into an empty environment and run the smoke test there, in an empty folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    offered = {re.split(r"[<>=!]", text)[0] for held in project["optional-dependencies"].values() for text in held}
    modules = {"python-multipart": "python_multipart", "prometheus-client": "prometheus_client"}
    extras = " ".join(sorted(modules.get(name, name) for name in offered))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run([UV, "venv", "-q", "--python", python, place / "env"])
        inside = place / "env" / "bin" / "python"
        # of what a wheel asks for itself uv takes the newest; so it is asked for beside the wheel
        asked = project["dependencies"] if resolution == "lowest-direct" else []
        run([UV, "pip", "install", "-q", "--resolution", resolution, "--python", inside, wheel, *asked])
        run([UV, "pip", "check", "-q", "--python", inside])
        (place / "empty").mkdir()
        run([inside.with_name("garnish"), "--help"], cwd=place / "empty")
        told = run([inside, "-I", "-W", "error::SyntaxWarning", "-c", SMOKE, extras], cwd=place / "empty")
        return dict(json.loads(told.splitlines()[-1]))


def run(command: list[str | Path], cwd: Path | None = None) -> str:
    """What a command printed; its error ends the script."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command[:4]))} …: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout + (done.stderr if command[:2] == [UV, "build"] else "")


if __name__ == "__main__":
    sys.exit(main())
