"""``garnish check DATA``: the doctor over all splits, its page, and what is printed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from garnish.checking.plain_data import Json
from garnish.commands.check_guess import file_to_write, write_guess
from garnish.errors import OptionError
from garnish.files.path_text import given_path
from garnish.output import muted, say


def check_set(given: argparse.Namespace) -> int:
    """Examine, write and print; returns the exit code: 1 if there are errors.

    Args:
        given: the options of the command.

    Raises:
        OptionError: what cannot be done as asked, before any picture is read.
    """
    page = None if given.page is None else _page_to_write(given.page)
    if given.fix is not None:
        _check_copy(given.fix)
    written = None if given.write is None else file_to_write(given.write, given.source)
    from garnish.commands.check_text import print_diagnosis
    from garnish.commands.predict_progress import PredictProgress
    from garnish.commands.printing import print_json
    from garnish.data.folder import description_of
    from garnish.doctor.examine import chosen_checks, examine
    from garnish.doctor.opened_splits import open_splits

    chosen_checks(given.only)
    if written is not None:
        write_guess(given.source, written)
    named = given.source if written is None else str(written)
    source = _source(named)
    description = description_of(source)
    live: list[PredictProgress] = []

    def progress(done: int, total: int) -> None:
        if not live:
            live.append(PredictProgress(total, lines=False))
            live[0].__enter__()
        live[0].picture(None)

    try:
        diagnosis = examine(
            description, splits=given.split, only=given.only, limit=given.limit, jobs=given.jobs, progress=progress
        )
    finally:
        for line in live:
            line.__exit__()
    if page is not None:
        from garnish.doctor.page.check_page import write_check_page

        with muted("garnish"):  # it was opened before, and said then what it has to say
            opened = open_splits(description, list(diagnosis.splits))
        write_check_page(diagnosis, opened.sets, page, source=named)
    mended = None
    if given.fix is not None:
        from garnish.doctor.fixing import fix

        with muted("garnish"):
            mended = fix(source, diagnosis, given.fix, known=description)
    if given.json:
        print_json(diagnosis.plain() | ({} if mended is None else {"mended": vars(mended)}))
    else:
        print_diagnosis(diagnosis, named, page=None if page is None else str(page), mended=mended)
    return 1 if diagnosis.errors else 0


def _page_to_write(text: str) -> Path:
    path = given_path(text, "--page")
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"--page: {path}: is an HTML file; name it so, e.g. check.html")
    if path.is_dir():
        raise OptionError(f"--page: {path}: is a folder; name a file, e.g. {path / 'check.html'}")
    if not path.parent.is_dir():
        raise OptionError(f"--page: {path}: there is no folder {path.parent}; make it first")
    return path


def _check_copy(text: str) -> None:
    folder = given_path(text, "--fix")
    if folder.exists() or folder.is_symlink():
        raise OptionError(f"--fix: {folder} exists; name a folder that does not, for the mended copy")
    if not folder.absolute().parent.is_dir():
        raise OptionError(f"--fix: {folder}: there is no folder {folder.parent}; make it first")


def _source(text: str) -> str | Mapping[str, Json]:
    """The data of the command line; of a recipe, what stands under its ``data``."""
    from garnish.data.sources import MATERIALS, SCENES
    from garnish.files.strict_yaml import read_yaml
    from garnish.recipes.recipe import read_recipe

    path = given_path(text, "check")
    found: Json = text
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        plain = read_yaml(path)
        if isinstance(plain, Mapping) and "data" in plain and not {"images", "layout"} & plain.keys():
            found = read_recipe(path).plain["data"]
            say(f"{path}: is a recipe; its data are looked at", stderr=True)
    name = found.get("name") if isinstance(found, Mapping) else found
    if isinstance(name, str) and name in (SCENES, MATERIALS) and not Path(name).exists():
        raise OptionError(f"check: {name} are drawn, not read; --data {name} looks at a split of them")
    if isinstance(found, list):
        raise OptionError(f"check: {path}: names {len(found)} data sets; look at each of them by itself")
    if not isinstance(found, str | Mapping):
        raise OptionError(f"check: {path}: names no data; write `data`, or give a folder or a data description")
    return found
