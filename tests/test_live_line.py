"""The live line on terminals of many widths, as a pseudo-terminal receives it, and the lines where there is none."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

import garnish
from garnish.reporting.live_line import LiveLine, clock, fitting
from garnish.training.progress import Progress

#: what a terminal obeys and does not show
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: what draws in the terminal, a run of many tasks with long and wide names
RUN = """
import time
from garnish.training.progress import Progress
losses = {"semantic_segmentation": 1.23456, "深度估计": 0.0123456, "normals": 123.456, "edges\\x1b[2J": 0.5}
losses["saliency"] = 2.0
with Progress(123456, pictures=8) as progress:
    for step in range(1, 30):
        progress.step(step, losses, 12.345)
        time.sleep(0.02)
    progress.warn("one warning")
"""
PREDICT = """
import time
from garnish.commands.predict_progress import PredictProgress
with PredictProgress(1000, lines=True) as progress:
    for _ in range(30):
        progress.picture("a line")
        time.sleep(0.02)
"""


def drawn(code: str, columns: int) -> str:
    """What a terminal of so many columns receives on standard error."""
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    import fcntl
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    source = str(Path(garnish.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source, "TERM": "xterm", "NO_COLOR": "1"}
    env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    child = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    received = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the child has gone
            break
        if not part:
            break
        received += part
    os.close(ours)
    assert child.wait() == 0, received.decode()
    return received.decode()


@pytest.mark.parametrize("columns", [200, 80, 47, 20, 5])
def test_no_drawing_is_wider_than_the_terminal(columns):
    received = drawn(RUN, columns)
    shown = [part for part in re.split(r"[\r\n]+", CONTROL.sub("", received)) if "warning" not in part]
    lines = [part for part in shown if "/123456" in part or "…" in part]
    assert lines and max(map(cell_len, lines)) < columns
    assert "\x1b[2J" not in received  # a task's name is shown, not obeyed
    if columns >= 20:
        assert all("123456" in line for line in lines)
    if columns >= 47:
        assert all(" left" in line and "loss 12.3" in line for line in lines)
    if columns == 80:
        assert any("seman 1.2" in line and "pic/s" in line for line in lines)
    if columns == 200:
        assert any("semantic_segmentation 1.235" in line and "pictures/s" in line for line in lines)
    # nothing but the warning, the end of the last drawing, and what rich writes around them moves on to a new line
    assert received.count("\n") <= 4 + columns // 5


@pytest.mark.parametrize("columns", [80, 12])
def test_prediction_draws_in_the_same_way(columns):
    received = drawn(PREDICT, columns)
    lines = [part for part in re.split(r"[\r\n]+", CONTROL.sub("", received)) if part.strip()]
    assert "a line" not in received and max(map(cell_len, lines)) < columns
    assert any(("30/1000 pictures" if columns == 80 else "30/1000") in line for line in lines)


def test_the_longest_text_that_fits():
    lengths = ["twelve cells", "six 深", "one"]
    for columns, wanted in ((13, lengths[0]), (12, lengths[0]), (11, lengths[1]), (6, lengths[1]), (5, "one")):
        assert fitting(lengths, columns) == wanted
    assert [fitting(lengths, columns) for columns in (3, 2, 1)] == ["one", "o…", "…"]


def test_a_run_at_80_columns_keeps_all_that_matters():
    progress = Progress(100_000, pictures=16)
    progress.losses = {"seg": 0.5321, "depth": 1.25, "normals": 0.71, "edges": 0.022}
    progress.loss, progress.speed = 5.4321, 1.5
    line = fitting(list(progress.lengths(40_000)), 79)
    assert line == " 40000/100000  loss 5.43  seg 0.53  depth 1.2  …  24 pic/s  11:06:40 left"


def test_clocks():
    wanted = {0: "0:00", 59.4: "0:59", 59.6: "1:00", 3599: "59:59", 3725: "1:02:05", 1e12: "999:00:00", -3: "0:00"}
    assert {seconds: clock(seconds) for seconds in wanted} == wanted


def test_nothing_is_counted_where_there_is_no_terminal_and_no_total(capsys):
    asked = []

    def lengths():
        asked.append(1)
        yield "a line"

    with LiveLine(None) as line:
        for done in range(100):
            line.show(done, lengths())
    with LiveLine(10, shown=False) as line:
        for done in range(10):
            line.show(done, lengths())
        line.say("not said")
        line.warn("but warned")
    assert capsys.readouterr().err == "warning: but warned\n" and not asked
    with LiveLine(20) as line:
        for done in range(1, 21):
            line.show(done, lengths())
    assert capsys.readouterr().err == "a line\n" * 10 and len(asked) == 10
