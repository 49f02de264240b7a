"""``garnish check FOLDER --write data.yaml``: what was guessed of a folder is printed, and kept as a description."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from garnish.errors import OptionError
from garnish.files.path_text import given_path
from garnish.output import say


def file_to_write(text: str, folder: str) -> Path:
    """The file of ``--write``, before anything is read.

    Args:
        text: as given.
        folder: DATA, which must have no description yet.

    Raises:
        OptionError: the file exists, is no YAML file or has no folder; DATA is described already.
    """
    from garnish.data.layouts.layout import Layout
    from garnish.registry import classes

    path, root = given_path(text, "--write"), given_path(folder, "check")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise OptionError(f"--write: {path}: a description is a YAML file; name it so, e.g. data.yaml")
    if path.exists() or path.is_symlink():
        raise OptionError(f"--write: {path} exists; give another name, or move it away")
    if not path.parent.is_dir():
        raise OptionError(f"--write: {path}: there is no folder {path.parent}; make it first")
    if not root.is_dir():
        raise OptionError(f"--write: {root}: is no folder; --write keeps what is guessed of a folder of pictures")
    if (root / "data.yaml").is_file():
        raise OptionError(f"--write: {root / 'data.yaml'} describes the folder already; leave --write out, or move it")
    known: Mapping[str, type[Layout]] = classes("layouts")
    for name, layout in known.items():
        if layout.recognised(root):
            raise OptionError(f"--write: {root} is read as {{layout: {name}}}, so nothing is guessed; leave it out")
    return path


def write_guess(folder: str, file: Path) -> None:
    """Guess, print on standard error what was taken and why, and write the description.

    Args:
        folder: of pictures.
        file: as :func:`file_to_write` gave it.

    Raises:
        DataError: something cannot be told, which is asked in one line; nothing is written.
    """
    from garnish.data.guessing.guessed import guessed
    from garnish.data.guessing.writing import question_of, write_description

    found = guessed(given_path(folder, "check"))
    say(*found.lines, *(f"left out: {line}" for line in found.left_out), stderr=True)
    if found.questions:
        raise question_of(found, writing=True)
    write_description(found, file)
    say(f"{file}: written; correct it where it is wrong", stderr=True)
