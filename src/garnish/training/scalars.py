"""Scalars of a run over its steps, for TensorBoard and as CSV, which go on where a resumed run does, and other loggers.

A logger of another kind begins anew when a run is resumed, with the steps counted on.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from garnish.errors import MissingExtraError
from garnish.files.atomic import write_file, writing
from garnish.training.loggers import OWN, logger_class, start_logger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@final
class Scalars:
    """Writes ``FOLDER/scalars.csv`` and TensorBoard's event files beside it.

    Args:
        folder: created where it is missing.
        columns: names of the scalars, fixed for the whole run.
        kinds: "tensorboard", "csv", and names of other loggers.
        start: steps done; rows of later steps, of a run that was cut off, are dropped.

    Raises:
        MissingExtraError, OptionError: a logger that is not installed or cannot be started.
    """

    def __init__(self, folder: Path, columns: Sequence[str], kinds: Sequence[str], start: int = 0) -> None:
        self.columns = ["step", *columns]
        self.file = folder / "scalars.csv" if "csv" in kinds else None
        writer = import_tensorboard() if "tensorboard" in kinds else None
        if kinds:
            folder.mkdir(parents=True, exist_ok=True)
        self.board = None if writer is None else writer(str(folder), purge_step=start + 1 if start else None)
        self.others = [start_logger(name, folder) for name in kinds if name not in OWN]
        if self.file is not None:
            rows = read_rows(self.file) if start else []
            text = io.StringIO()
            table = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\r\n")
            table.writeheader()
            table.writerows(row for row in rows if int(row["step"]) <= start)
            with writing(f"{self.file}:", ", then resume"):
                write_file(self.file, text.getvalue().encode())

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row; a scalar that is left out has no value at this step."""
        if self.file is not None:
            with (
                writing(f"{self.file}:", ", then resume"),
                self.file.open("a", newline="", encoding="utf-8") as stream,
            ):
                row = {name: f"{value:.8g}" for name, value in values.items()}
                csv.DictWriter(stream, self.columns, restval="").writerow({"step": step, **row})
        self.add_to_board(step, values)

    def add_to_board(self, step: int, values: Mapping[str, float]) -> None:
        """Send values to all but the CSV file (the metrics of evaluations, which have a table of their own)."""
        if self.board is not None:
            with writing(f"{self.board.log_dir}:", ", then resume"):
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)
        for logger in self.others:
            logger.log_metrics(dict(values), step)

    def close(self, *, finished: bool = True) -> None:
        """Flush everything; loggers are told whether the run came to its end."""
        for logger in self.others:
            logger.finalize("success" if finished else "aborted")
        if self.board is not None:
            with writing(f"{self.board.log_dir}:", ", then resume"):
                self.board.close()


def log_kinds(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """What a run logs to; None: CSV, and TensorBoard where it is installed.

    Raises:
        MissingExtraError, OptionError: a logger that is not installed, or a name that is no logger's.
    """
    if wanted is not None:
        for name in wanted:
            if name == "tensorboard":
                import_tensorboard()
            elif name not in OWN:
                logger_class(name)
        return tuple(wanted)
    return ("csv", "tensorboard") if importlib.util.find_spec("tensorboard") is not None else ("csv",)


def import_tensorboard() -> type[SummaryWriter]:
    """The writer class of event files."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError(
            "train.log: tensorboard is not installed; pip install 'garnish[tensorboard]', or set log to [csv]"
        ) from None
    return SummaryWriter


def read_rows(file: Path) -> list[dict[str, str]]:
    """Whole rows of a CSV file with a header; a last row that was cut off is left out."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if (row.get("step") or "").isdigit() and None not in row.values()]
