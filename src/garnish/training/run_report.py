"""What a run writes for people into its folder: logs, results, sheets of pictures, details of the best step, the page.

Sheets, details and page only show what there is: an error there is a warning, once, and training goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from torch import Tensor

from garnish.checking.plain_data import Json
from garnish.data.dataset import Batch
from garnish.drawing.map_files import picture_bytes
from garnish.errors import one_line
from garnish.files.atomic import write_file
from garnish.files.strict_yaml import write_yaml
from garnish.model.model import Model
from garnish.registry import plain
from garnish.tasks.task import Task
from garnish.training.run_page import DETAILS, PAGE, AboutRun, command_words, run_page, sheet_place
from garnish.training.run_state import without_base, write_results
from garnish.training.saved_facts import Metrics, RunState
from garnish.training.scalars import Scalars
from garnish.training.task_details import TaskDetails, keep_details, kept_details
from garnish.training.thinned_curves import ThinnedCurves
from garnish.training.validation import Validation
from garnish.training.validation_sheets import ValidationSheets


@final
class RunReport:
    """Draws and writes; made by the first process of a run that has a folder.

    Args:
        folder: of the run.
        model: in training.
        recipe: as ``args.yaml`` has it.
        show: number of pictures of a sheet.
        validation: None: there are no validation pictures.
        state: of the run, as it was started or resumed.
        warn: takes one line.
        losses: names of the trained tasks.
        learnt: tasks whose weights are learnt.
        total: steps of the run.
        log: kinds of logs.
    """

    def __init__(
        self,
        folder: Path,
        model: Model,
        recipe: Mapping[str, Json],
        show: int,
        validation: Validation | None,
        state: RunState,
        warn: Callable[[str], None],
        *,
        losses: Sequence[str],
        learnt: Sequence[str],
        total: int,
        log: Sequence[str],
    ) -> None:
        self.folder, self._warn, self._failed = folder, warn, False
        if state.history:  # which is checked, as the table of an earlier session is not
            write_results(folder, state.history)
        columns = ["loss", *(f"loss/{t}" for t in losses), *(f"weight/{t}" for t in learnt), "lr", "steps_per_second"]
        self.scalars = Scalars(folder / "log", columns, log, state.step)
        tasks: dict[str, Task] = {} if validation is None else validation.tasks
        self.sheets: ValidationSheets | None = None
        if validation is not None and show:
            self.sheets = ValidationSheets(tasks, validation.data.bands, validation.shown(show))
        self.details = kept_details(folder / DETAILS, tasks, state.best_step)
        self.curves = ThinnedCurves()
        with self._only_showing():
            self.about = AboutRun(
                folder=folder,
                total=total,
                headlines={name: task.headline for name, task in tasks.items()},
                losses=losses,
                model=repr(model),
                recipe=write_yaml(plain(without_base(recipe))),
                data=command_words(recipe.get("data")),
                by_command="data" in recipe,
            )
            for row in self.scalars.earlier:
                values = {name: float(text) for name, text in row.items() if name != "step" and text}
                self.curves.add(int(row["step"]), values)

    def step(
        self,
        step: int,
        losses: Mapping[str, float],
        total_loss: float,
        rate: float,
        weights: Mapping[str, float],
        steps_per_second: float,
    ) -> None:
        """Log a finished step."""
        values = {"loss": total_loss, **{f"loss/{n}": v for n, v in losses.items()}, "lr": rate}
        values |= {f"weight/{n}": v for n, v in weights.items()}
        self.scalars.add(step, values | {"steps_per_second": steps_per_second})
        self.curves.add(step, values)

    def look(self, pictures: list[int], batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Take what a sheet needs of a batch of an evaluation."""
        if self.sheets is not None and not set(pictures).isdisjoint(self.sheets.wanted):
            with self._only_showing():
                self.sheets.look(pictures, batch, outputs)

    def evaluated(self, state: RunState, metrics: Metrics, details: TaskDetails) -> None:
        """After an evaluation, which is in ``state``: results and logs, its sheet, its details if it is the best."""
        write_results(self.folder, state.history)
        values = {f"val/{n}/{k}": v for n, found in metrics.items() for k, v in found.items()}
        self.scalars.add_to_board(state.step, values)
        with self._only_showing():
            self._write_sheet(state.step)
        if state.best_step == state.step:
            self.details = details.found
            with self._only_showing():
                keep_details(self.folder / DETAILS, details, state.step)

    def close(self, *, finished: bool) -> None:
        """Close the logs."""
        self.scalars.close(finished=finished)

    def write(self, state: RunState, warnings: Sequence[str]) -> None:
        """Write the page."""
        with self._only_showing():
            names = [] if self.sheets is None else [self.sheets.names[k] for k in sorted(self.sheets.names)]
            now = time.strftime("%Y-%m-%d %H:%M")
            page = run_page(self.about, state, self.curves, self.details, warnings=warnings, shown=names, now=now)
            write_file(self.folder / PAGE, page.encode(), synced=False)

    def _write_sheet(self, step: int) -> None:
        image = None if self.sheets is None else self.sheets.drawn()
        if image is not None:
            data = picture_bytes(image, "JPEG")
            write_file(self.folder / sheet_place(step), data, synced=False)
            self.scalars.add_picture("validation", data, (image.height, image.width), step)

    @contextmanager
    def _only_showing(self) -> Iterator[None]:
        """Turn an error inside a ``with`` block into a warning, the first time."""
        try:
            yield
        except Exception as error:
            if not self._failed:
                self._failed = True
                self._warn(f"the run's page or pictures cannot be drawn ({one_line(error, 200)}); training goes on")
