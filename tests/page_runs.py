"""The page's modules run in node, without a browser; tests skip where there is no node, or no onnxruntime-web."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from garnish.errors import MissingExtraError
from garnish.page.files import export_page_files, own_files
from garnish.runtime import Session

NODE = shutil.which("node")
DRIVER = Path(__file__).with_name("page_in_node.mjs")


def written_modules(folder: Path) -> Path:
    """A folder with the page's own files; skips the test where node is missing or old."""
    if NODE is None or _major() < 18:
        pytest.skip("there is no node of version 18 or newer")
    for name, data in own_files().items():
        (folder / name).write_bytes(data)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def written_page(folder: Path) -> Path:
    """The same with onnxruntime-web; skips the test where npm cannot fetch it."""
    written_modules(folder)
    try:
        files = export_page_files()
    except MissingExtraError as error:
        pytest.skip(str(error))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def _major() -> int:
    told = subprocess.run([str(NODE), "-p", "process.versions.node"], capture_output=True, text=True, check=True)
    return int(told.stdout.split(".")[0])


def in_node(page: Path, job: Path, **told: Any) -> dict[str, Any]:
    (job / "job.json").write_text(json.dumps(told))
    done = subprocess.run([str(NODE), str(DRIVER), str(page), str(job)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads((job / "answer.json").read_text())


def bytes_of(file: Path, decoded: np.ndarray) -> np.ndarray:
    rgba = np.fromfile(file, np.uint8).reshape(*decoded.shape[-2:], 4)
    assert (rgba[..., 3] == 255).all()
    return rgba[..., :3]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def predicted(page: Path, job: Path, folder: Path, pixels: np.ndarray, bundle: str | None = None) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    rgba = np.concatenate([pixels, np.full((height, width, 1), 255, np.uint8)], -1)
    (job / "rgba.bin").write_bytes(rgba.tobytes())
    return in_node(page, job, what="predict", export=str(folder), width=width, height=height, bundle=bundle)


def assert_same_maps(job: Path, session: Session, pixels: np.ndarray, bundle: str | None = None) -> None:
    maps = session.predict(pixels, bundle)
    painted = maps.painted()
    for task in maps.maps:
        expected = maps[task]
        found = np.fromfile(job / f"{task}.map.bin", expected.dtype).reshape(expected.shape)
        if expected.dtype == np.uint8:
            assert (found == expected).mean() > 0.999
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        off = np.abs(bytes_of(job / f"{task}.rgba.bin", expected).astype(int) - painted[task]).max(-1)
        assert (off > 0).mean() < 2e-3
