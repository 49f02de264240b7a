"""A diagnosis as text for a terminal of 80 columns: counts, tasks, findings with the worst first, what to do next."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from rich.text import Text

from garnish.commands.printing import print_table
from garnish.doctor.diagnosis import Diagnosis, SplitFacts
from garnish.doctor.fault import Fault
from garnish.doctor.fixing import Mended
from garnish.doctor.page.finding_cards import grouped
from garnish.doctor.verdict import next_steps, verdict_of
from garnish.errors import plural, showable
from garnish.output import console, say
from garnish.reporting.number_format import seconds_text

#: Findings of a check that are printed, and further files of a finding that are named.
_SHOWN, _NAMED = 4, 3
#: Columns of a terminal that lines are broken at, at most; long lines are hard to read.
_WIDEST = 110
_STYLES = {"error": "bold red", "warning": "bold yellow", "hint": "bold"}


def print_diagnosis(
    diagnosis: Diagnosis, source: str, *, page: str | None = None, mended: Mended | None = None
) -> None:
    """Print what was found.

    Args:
        diagnosis: it.
        source: the data as the command line names them.
        page: file of the page; None: none was written.
        mended: what was done in a copy; None: none was made.
    """
    print_table(["split", "pictures", "looked at", "sizes"], [_split_row(*one) for one in diagnosis.splits.items()])
    say("")
    print_table(["task", "kind", *diagnosis.splits, "labelled"], list(_task_rows(diagnosis)))
    wide, more = console(), False
    for (level, check), faults in grouped(diagnosis.faults).items():
        say("")
        wide.print(Text(f"{level}: {showable(check)}", style=_STYLES[level]), end="")
        say(f" ({plural(len(faults), 'finding')})" if len(faults) > 1 else "")
        for fault in faults[:_SHOWN]:
            say(*_fault_lines(fault, diagnosis.root))
        if len(faults) > _SHOWN:
            more = True
            say(f"  … and {len(faults) - _SHOWN} more")
    say("")
    say(*(line for skipped in diagnosis.skipped for line in _broken(f"not looked at: {skipped}", "", "  ")))
    say(*_broken(f"{verdict_of(diagnosis)}, {seconds_text(diagnosis.seconds)}", "", "  "))
    if mended is None:
        say(*(line for step in next_steps(diagnosis, source) for line in _broken(step, "", "  ")))
    else:
        say(*(part for line in _mended_lines(mended) for part in _broken(line, "", "  ")))
    if page is not None:
        say(f"to see pictures of it: open {page}")
    elif diagnosis.faults:
        say(f"to see {'all of it, with pictures' if more else 'pictures of it'}: add --page check.html")


def _split_row(name: str, facts: SplitFacts) -> list[str]:
    sizes = [size if len(facts.sizes) == 1 else f"{size} ({count:,})" for size, count in facts.sizes.items()]
    told = ", ".join(sizes[:3]) + (f", {len(sizes) - 3} more" if len(sizes) > 3 else "")
    unread = f"{facts.unread:,} cannot be read" if facts.unread else ""
    return [name, f"{facts.pictures:,}", f"{facts.looked:,}", ", ".join(part for part in (told, unread) if part)]


def _task_rows(diagnosis: Diagnosis) -> Iterator[list[str]]:
    """Name, kind, labels of each split, share of labelled pixels."""
    for task, kind in diagnosis.tasks.items():
        counts = [facts.counts[task] for facts in diagnosis.splits.values() if task in facts.counts]
        total = sum(one.total for one in counts)
        share = f"{sum(one.labelled for one in counts) / total:.1%}" if total else "–"
        labels = [f"{facts.with_labels.get(task, 0):,}" for facts in diagnosis.splits.values()]
        yield [task, kind, *labels, share]


def _fault_lines(fault: Fault, root: str) -> Iterator[str]:
    yield from _broken(fault.message, "  ", "    ")
    if others := [file for file in fault.files if not fault.message.startswith(file)][:_NAMED]:
        left = len(fault.files) - len(others) - (fault.files[0] not in others)
        yield from _broken(
            "also "
            + ", ".join(file.removeprefix(f"{root}/") for file in others)
            + (f" and {left} more" if left > 0 else ""),
            "    ",
            "    ",
        )
    fix = " (--fix does this in a copy)" if fault.fix or fault.write else ""
    yield from _broken(f"→ {fault.remedy}{fix}", "    ", "      ")


def _mended_lines(mended: Mended) -> Iterator[str]:
    yield f"{mended.folder}: a copy of {plural(mended.copied, 'file')}"
    yield from (f"mended: {line}" for line in mended.done)
    yield from (f"not mended: {line}" for line in mended.left)
    yield f"to look at the copy: garnish check {shlex.quote(mended.folder)}"


def _broken(line: str, first: str, others: str) -> Sequence[str]:
    """The line broken at the width of the terminal; whole where the output is a file or a pipe, for grep."""
    line = showable(line)
    if not _is_terminal():
        return [first + line]
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.wrap(
        line, width, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def _is_terminal() -> bool:
    return sys.stdout.isatty()
