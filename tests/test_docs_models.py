"""The code of docs/models.md runs as it stands, and the command that it names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from garnish.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_code_of_timms_models(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    part = PAGE[PAGE.index("## Models of timm\n") : PAGE.index("## Names on the Hub")]
    blocks = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/models.md", "exec"), names)
    (printed,) = re.findall(r"print\(.*  # (.*)", part)
    assert capsys.readouterr().out.strip() == printed
    Image.fromarray(np.zeros((60, 50, 3), np.uint8)).save("picture.png")
    assert main(["predict", "given", "picture.png", "--out", "maps"]) == 2
    assert "was a model in memory; pass backbone=" in capsys.readouterr().err
    assert main(["predict", "given", "picture.png", "--out", "maps", "--weights", "trunk.safetensors"]) == 0
    assert list(Path("maps").iterdir())
