"""Where the paths of a recipe start, and the data description that a path stands for. Nothing here needs torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from garnish.backbones.finished_names import FINISHED
from garnish.strict_yaml import read_yaml

_WEIGHTS_FILE = re.compile(r"[./~].*|.*\.(safetensors|pth|pt|bin)")


def relocated(plain: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The sections with relative paths, which start at the recipe (or, where nothing lies there, at the working
    directory), made relative to the working directory; ``out`` starts there anyway.
    """
    found = dict(plain)
    backbone = found.get("backbone")
    if isinstance(backbone, dict) and isinstance(weights := backbone.get("weights"), str):
        found["backbone"] = {**backbone, "weights": _moved(weights, base, sure=bool(_WEIGHTS_FILE.fullmatch(weights)))}
    if "data" in found:
        found["data"] = _data_moved(found["data"], base)
    if "onto" in found:
        found["onto"] = [
            _moved(p, base, sure=p not in FINISHED) if isinstance(p, str) else p for p in as_list(found["onto"])
        ]
    return found


def _data_moved(given: Any, base: Path) -> Any:
    if isinstance(given, list):
        return [_data_moved(part, base) for part in given]
    if isinstance(given, str) and given != "scenes":
        return _moved(given, base)
    if isinstance(given, dict) and given.get("name") != "scenes":
        return {**given, "path": _moved(str(given.get("path", ".")), base)}
    return given


def _moved(path: str, base: Path, *, sure: bool = True) -> str:
    """``path`` from ``base``; ``sure``: it is a path, even if nothing lies there (and not a Hub id, say)."""
    expanded = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111 (keeps what pathlib would fold)
    there = os.path.normpath(base / expanded)
    if Path(there).exists() or (sure and not Path(expanded).exists()):
        return there
    return path


def inlined(given: Any) -> Any:
    """The mapping that a section data stands for, so that single keys of it can be set."""
    if given == "scenes":
        return {"name": "scenes"}
    if not isinstance(given, str):
        return given
    path = Path(given)
    if path.is_dir():
        path /= "data.yaml"
    content = read_yaml(path)
    return _data_moved(content, path.parent) if isinstance(content, dict) else content


def as_list(given: Any) -> list[Any]:
    """``a, b`` or a list → the list; None → nothing."""
    if given is None:
        return []
    if isinstance(given, str):
        return [part for part in re.split(r"\s*,\s*", given) if part]
    return list(given) if isinstance(given, Sequence) else [given]
