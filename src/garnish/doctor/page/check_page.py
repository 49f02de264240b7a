"""Writing the page of ``garnish check``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from markupsafe import Markup, escape

from garnish.data.folder import FolderDataset
from garnish.doctor.diagnosis import Diagnosis
from garnish.doctor.examine import chosen_checks
from garnish.doctor.fault import LEVELS
from garnish.doctor.page.class_shares import share_tables
from garnish.doctor.page.finding_cards import card_groups
from garnish.doctor.page.histogram_panels import histogram_panels
from garnish.doctor.page.page_room import PageRoom
from garnish.doctor.page.picture_sheet import picture_sheet
from garnish.doctor.verdict import next_steps, verdict_of
from garnish.files.atomic import write_file
from garnish.reporting.html_page import asset, html_page, shown_page

#: Bytes that pictures of the sheet, those of findings, and messages with lists of files may take: 5 MB with the rest.
_SHEET, _PICTURES, _LISTS = 1_200_000, 2_800_000, 600_000


def write_check_page(diagnosis: Diagnosis, sets: Sequence[FolderDataset], file: Path, *, source: str) -> Path:
    """Write the page of a diagnosis atomically; returns ``file``.

    The page holds its style and pictures, asks no network (its content policy forbids that) and runs one script of
    garnish, which switches between light and dark. It has 5 MB at most, whatever the set has: pictures and lists that
    find no room are left out, which is said there.

    Args:
        diagnosis: what was found.
        sets: the opened splits, whose pictures are shown.
        file: to write; its folder exists.
        source: the data as the command line names them, for the commands that the page proposes.

    Raises:
        OSError: no space, no permission; a page from before is unchanged.
    """
    write_file(file, check_page(diagnosis, sets, source=source).encode(errors="replace"))
    return file


def check_page(diagnosis: Diagnosis, sets: Sequence[FolderDataset], *, source: str) -> str:
    """HTML of the page; see :func:`write_check_page`."""
    lists = PageRoom(_LISTS)
    tasks = {name: task for dataset in sets for name, task in dataset.tasks.items()}
    finds = {name: check.finds for name, check in chosen_checks().items()}
    counts = {level: sum(fault.level == level for fault in diagnosis.faults) for level in LEVELS}
    made = html_page(
        _own("page.html"),
        styles=[asset("theme.css"), asset("report.css"), _own("page.css")],
        scripts=[asset("theme.js")],
        diagnosis=diagnosis,
        verdict=verdict_of(diagnosis),
        steps=next_steps(diagnosis, source),
        counts={level: count for level, count in counts.items() if count},
        groups=card_groups(diagnosis.faults, sets, finds, PageRoom(_PICTURES), lists),
        shares=share_tables(diagnosis, {name: task.legend() for name, task in tasks.items()}),
        panels=histogram_panels(diagnosis),
        coded=_coded,
        sheet=picture_sheet(sets, PageRoom(_SHEET)),
    )
    return shown_page(made)


def _coded(line: str) -> Markup:
    """The line, escaped, with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(line))))


def _own(name: str) -> str:
    return resources.files("garnish.doctor.page").joinpath(name).read_text("utf-8")
