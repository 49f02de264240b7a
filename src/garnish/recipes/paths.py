"""Resolving the relative paths of a recipe, and reading the data description at a path. Nothing here needs torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from garnish.backbones.segformer.finished_names import FINISHED
from garnish.checking.plain_data import Json
from garnish.errors import OptionError
from garnish.files.path_text import given_path
from garnish.files.strict_yaml import read_yaml
from garnish.hub.address import is_hub
from garnish.stores.address_text import is_address

#: Data that are made when they are asked for, and lie nowhere.
RENDERED = ("scenes", "material-scenes")

_WEIGHTS_FILE = re.compile(r"[./~].*|.*\.(safetensors|pth|pt|bin)")


def relocated(plain: Mapping[str, Json], base: Path, source: str) -> dict[str, Json]:
    """The sections with paths relative to the recipe's folder (or, if nothing exists there, to the working directory)
    made relative to the working directory; ``out`` is so already.

    Raises:
        OptionError: text that can be no path, naming ``source`` and the option.
    """
    return _each_moved(plain, lambda path, option, sure: _moved(path, base, f"{source}: {option}", sure=sure))


def from_base(
    plain: Mapping[str, Json], base: Path, replaced: Collection[str], source: str
) -> tuple[dict[str, Json], dict[str, str]]:
    """The sections of a run's ``args.yaml``, whose paths are all relative to ``base``.

    Args:
        plain: the sections.
        base: the folder that the run was started in.
        replaced: dotted keys that the command line sets; their old paths need not exist.
        source: the file, for messages.

    Returns:
        The sections with paths relative to the working directory, and each such path → its text in the file.

    Raises:
        OptionError: a path does not exist.
    """
    written: dict[str, str] = {}

    def moved(path: str, option: str, sure: bool) -> str:
        there = Path(os.path.normpath(base / _filled(path, f"{source}: {option}")))
        if not there.exists() and option != "train.cache":
            if not sure:
                return path
            if not any(key == option or f"{option}.".startswith(f"{key}.") for key in replaced):
                raise OptionError(
                    f"{source}: {option}: there is no {there}, where the run was started with {path}; if it was moved,"
                    f" give --{option} and where it is now"
                )
        here = Path.cwd()
        found = str(there.relative_to(here)) if there.is_relative_to(here) else str(there)
        written[found] = path
        return found

    found = _each_moved(plain, moved)
    train = found.get("train")
    if isinstance(train, dict) and isinstance(cache := train.get("cache"), str):
        found["train"] = {**train, "cache": moved(cache, "train.cache", True)}
    return found, written


def as_written(value: Json, written: Mapping[str, str]) -> Json:
    """A plain value with every path that :func:`from_base` changed restored to its text in the file."""
    if isinstance(value, Mapping):
        return {key: as_written(inner, written) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_written(inner, written) for inner in value]
    return written.get(value, value) if isinstance(value, str) else value


def _each_moved(plain: Mapping[str, Json], moved: Callable[[str, str, bool], str]) -> dict[str, Json]:
    """The sections with ``moved(path, option, sure)`` for each path; ``sure``: it cannot be a Hub id, for example."""
    found = dict(plain)
    backbone = found.get("backbone")
    if isinstance(backbone, dict) and isinstance(weights := backbone.get("weights"), str):
        sure = bool(_WEIGHTS_FILE.fullmatch(weights))
        found["backbone"] = {**backbone, "weights": moved(weights, "backbone.weights", sure)}
    if "data" in found:
        found["data"] = _data_moved(found["data"], lambda path: moved(path, "data", True))
    if "onto" in found:
        listed = as_list(found["onto"])
        found["onto"] = [
            moved(p, "onto", p not in FINISHED) if isinstance(p, str) and not is_hub(p) else p for p in listed
        ]
    return found


def _data_moved(given: Json, moved: Callable[[str], str]) -> Json:
    if isinstance(given, list):
        return [_data_moved(part, moved) for part in given]
    if isinstance(given, str) and given not in RENDERED:
        return moved(given)
    if isinstance(given, dict) and given.get("name") not in RENDERED:
        path = given.get("path", ".")
        odd = isinstance(path, bool) or not isinstance(path, str | int) or is_address(path)
        return given if odd else {**given, "path": moved(str(path))}
    return given


def _filled(path: str, where: str) -> str:
    """A path with variables and ``~`` filled; raises OptionError if it can be none."""
    given_path(path, where)
    given_path(os.path.expandvars(path) or path, where)
    return os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111 (keeps what pathlib would fold)


def _moved(path: str, base: Path, where: str, *, sure: bool = True) -> str:
    """``path`` relative to ``base``; ``sure``: it is a path even if nothing exists there (and not a Hub id)."""
    expanded = _filled(path, where)
    there = os.path.normpath(base / expanded)
    if Path(there).exists() or (sure and not Path(expanded).exists()):
        return there
    return path


def inlined(given: Json) -> Json:
    """The content of the section ``data`` as a mapping, so that single keys of it can be set."""
    if isinstance(given, str) and given in RENDERED:
        return {"name": given}
    if not isinstance(given, str):
        return given
    path = given_path(given, "data")
    if path.is_dir():
        if not (path / "data.yaml").is_file():
            return {"path": str(path)}  # which is guessed where it is opened
        path /= "data.yaml"
    content = read_yaml(path)
    return _data_moved(content, lambda p: _moved(p, path.parent, str(path))) if isinstance(content, dict) else content


def as_list(given: Json) -> list[Json]:
    """``a, b`` or a list → the list; None → nothing."""
    if given is None:
        return []
    if isinstance(given, str):
        return [part for part in re.split(r"\s*,\s*", given) if part]
    return list(given) if isinstance(given, Sequence) else [given]
