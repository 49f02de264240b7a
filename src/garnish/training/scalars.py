"""Logging of a run's scalars to CSV and TensorBoard, which a resumed run continues, and to other loggers.

Other loggers start a new log when a run is resumed; step numbers continue.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from garnish.errors import BundleError, MissingExtraError, one_line, showable, shown
from garnish.files.atomic import write_file, writing
from garnish.files.regular import read_regular
from garnish.training.loggers import OWN, check_allowed, logger_class, start_logger

#: Largest file that is read, bytes: some million rows.
_MOST_BYTES = 2**30
_DIGITS = re.compile(r"[0-9]{1,18}")

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@final
class Scalars:
    """Writes ``FOLDER/scalars.csv`` and TensorBoard's event files next to it.

    Args:
        folder: created if missing.
        columns: names of the scalars, fixed for the whole run.
        kinds: "tensorboard", "csv", and names of other loggers.
        start: steps done; rows of later steps, left by an interrupted run, are dropped.

    Attributes:
        earlier: rows of the CSV file up to ``start``.

    Raises:
        MissingExtraError, OptionError: a logger that is not installed or cannot be started.
    """

    def __init__(self, folder: Path, columns: Sequence[str], kinds: Sequence[str], start: int = 0) -> None:
        self.columns = ["step", *map(showable, columns)]  # tasks of strangers are among them
        self.file = folder / "scalars.csv" if "csv" in kinds else None
        writer = import_tensorboard() if "tensorboard" in kinds else None
        if kinds:
            folder.mkdir(parents=True, exist_ok=True)
        self.board = None if writer is None else writer(str(folder), purge_step=start + 1 if start else None)
        self.earlier: list[dict[str, str]] = []
        self.others = [start_logger(name, folder) for name in kinds if name not in OWN]
        if self.file is not None:
            rows = read_rows(self.file) if start else []
            self.earlier = [row for row in rows if int(row["step"]) <= start]
            text = io.StringIO()
            table = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\r\n")
            table.writeheader()
            table.writerows(self.earlier)
            with writing(f"{self.file}:", ", then resume"):
                write_file(self.file, text.getvalue().encode())

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row; scalars that are left out have no value at this step."""
        if self.file is not None:
            with (
                writing(f"{self.file}:", ", then resume"),
                self.file.open("a", newline="", encoding="utf-8") as stream,
            ):
                row = {showable(name): f"{value:.8g}" for name, value in values.items()}
                csv.DictWriter(stream, self.columns, restval="").writerow({"step": step, **row})
        self.add_to_board(step, values)

    def add_to_board(self, step: int, values: Mapping[str, float]) -> None:
        """Send values to all logs but the CSV file (metrics of evaluations go to ``results.csv`` instead)."""
        if self.board is not None:
            with writing(f"{self.board.log_dir}:", ", then resume"):
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)
        for logger in self.others:
            logger.log_metrics(dict(values), step)

    def add_picture(self, name: str, jpeg: bytes, size: tuple[int, int], step: int) -> None:
        """Send a picture to TensorBoard, if that is a log; ``size``: its (height, width)."""
        if self.board is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        # as it is: the board's own way would encode the pixels anew, as PNG, in a tenth of a second
        image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=jpeg)
        with writing(f"{self.board.log_dir}:", ", then resume"):
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            self.board._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]

    def close(self, *, finished: bool = True) -> None:
        """Flush everything; loggers are told whether the run finished."""
        for logger in self.others:
            logger.finalize("success" if finished else "aborted")
        if self.board is not None:
            with writing(f"{self.board.log_dir}:", ", then resume"):
                self.board.close()


def log_kinds(wanted: Sequence[str] | None, allowed: Sequence[str] = ()) -> tuple[str, ...]:
    """The logs of a run; None: CSV, and TensorBoard if installed.

    Args:
        wanted: ``train.log``.
        allowed: class paths that may be imported besides Lightning's own.

    Raises:
        MissingExtraError, OptionError: a logger that is not installed or not allowed, or a name that is not a logger.
    """
    if wanted is not None:
        check_allowed(wanted, allowed)
        for name in wanted:
            if name == "tensorboard":
                import_tensorboard()
            elif name not in OWN:
                logger_class(name)
        return tuple(wanted)
    return ("csv", "tensorboard") if importlib.util.find_spec("tensorboard") is not None else ("csv",)


def import_tensorboard() -> type[SummaryWriter]:
    """TensorBoard's writer class; raises MissingExtraError if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError(
            "train.log: tensorboard is not installed; pip install 'garnish[tensorboard]', or set log to [csv]"
        ) from None
    return SummaryWriter


def read_rows(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV file of numbers with a header and a column ``step``; empty if there is no file.

    A last row that a kill has cut off is left out.

    Raises:
        BundleError: a damaged file: no such column, a row that is incomplete, or steps that do not grow.
    """
    remedy = "; move it away, then resume"
    if not file.is_file():
        return []
    try:
        text = read_regular(file, _MOST_BYTES).decode()
        text = text[: text.rfind("\n") + 1]  # without a row that was cut off
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise BundleError(f"{file}: cannot be read ({one_line(error, 120)}){remedy}") from error
    if "step" not in header or len(set(header)) != len(header):
        raise BundleError(f"{file}: is damaged (it has no column step, or a column twice){remedy}")
    found = [dict(zip(header, row, strict=False)) for row in rows]
    before = -1
    for number, (row, named) in enumerate(zip(rows, found, strict=True), start=2):
        step = named.get("step", "")
        if len(row) != len(header) or not _DIGITS.fullmatch(step) or int(step) <= before:
            raise BundleError(f"{file}: is damaged (row {number}: {shown(','.join(row))}){remedy}")
        before = int(step)
    return found
