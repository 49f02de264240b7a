"""What is done with a guess: it is used and told, refused with a line that helps, or written as a file to keep."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from garnish.checking.plain_data import Json
from garnish.data.guessing.guessed import Guessed, guessed
from garnish.errors import LONGEST, DataError, one_line
from garnish.files import atomic
from garnish.files.strict_yaml import write_yaml
from garnish.output import logger

_log = logger(__name__)


def guessed_description(root: Path) -> dict[str, Json]:
    """The description of a folder that has none, as in a data.yaml; what it is and why is logged.

    Raises:
        DataError: something cannot be told; the message names the command that shows all, and has a YAML to edit.
    """
    found = guessed(root)
    for line in found.left_out:
        _log.warning("%s: %s", root, line)
    if not found.sure:
        raise question_of(found)
    for line in found.lines:
        _log.info("%s: %s", root, line)
    _log.info("%s: no description; read as %s", root, _flow(found.description))
    return dict(found.description)


def question_of(found: Guessed, writing: bool = False) -> DataError:
    """The error of a guess that is not sure, with what to do; ``writing``: to whom has asked for a file already."""
    root = found.root
    asked = " Also: ".join((*found.to_check, *found.questions))
    # with questions the command writes nothing: it shows what else was found, and asks the same
    does = "shows more" if found.questions else "keeps this to be corrected"
    shows = "" if writing else f" `garnish check {root} --write data.yaml` {does}, or"
    text = f"{root}: {asked};{shows}"
    ready = f"save this as data.yaml there, correct it and give that file: {_flow(found.description)}"
    whole = f"{text} {ready}"
    return DataError(whole if len(whole) < LONGEST else f"{text} write {root / 'data.yaml'} (docs/data.md)")


def write_description(found: Guessed, path: Path) -> None:
    """Write a guess as a YAML file with comments that say why; its ``path`` is relative to the file.

    Args:
        found: a guess without questions.
        path: a file that does not exist yet; its folder does.

    Raises:
        DataError: there are questions, the file exists, or it cannot be written; nothing is left behind.
    """
    if found.questions:
        raise question_of(found, writing=True)
    if path.exists() or path.is_symlink():
        raise DataError(f"{path}: exists; give another name, or move it away")
    if not path.parent.is_dir():
        raise DataError(f"{path}: no folder {path.parent}; create it, or give another name")
    with atomic.writing(path, "the folder is as it was", DataError):
        atomic.write_file(path, described_text(found, path.parent).encode())


def described_text(found: Guessed, folder: Path) -> str:
    """The YAML text of a guess for a file in ``folder``."""
    description = dict(found.description)
    try:
        # of real paths: ".." behind a link leads elsewhere
        description["path"] = Path(os.path.relpath(found.root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        description["path"] = found.root.resolve().as_posix()
    parts = [_comment("Guessed by `garnish check`; correct what is wrong. The keys are those of docs/data.md.")]
    parts += [_comment(line) for line in found.left_out]
    for key, value in description.items():
        if key == "tasks" and isinstance(value, Mapping):
            # where nothing is held out, the file says why
            parts.append("" if "hold_out" in description else _comment(found.reasons.get("hold_out", "")))
            parts.append("tasks:\n")
            for name, entry in value.items():
                parts.append(_comment(found.reasons.get(str(name), ""), "  "))
                parts.append("".join(f"  {line}\n" for line in write_yaml({name: entry}).splitlines() if line.strip()))
            continue
        parts.append(_comment(found.reasons.get(key, "")))
        text = write_yaml({key: value})
        # a mapping without another one in it is dumped in braces, which cannot stand among other keys
        parts.append(f"{text[1:-2]}\n" if text.startswith("{") else text)
    return "".join(parts)


def _comment(text: str, indent: str = "") -> str:
    """A line of comment; nothing of nothing. Names of files come from strangers, so line breaks in them are escaped."""
    return f"{indent}# {one_line(text, 1000)}\n" if text else ""


def _flow(value: object) -> str:
    """YAML on one line; text is quoted where needed."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    if isinstance(value, str):
        plain = value.replace("_", "").replace("-", "").isalnum() and not value[0].isdigit() and value.isascii()
        return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
