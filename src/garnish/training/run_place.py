"""Where a run lies, agreed by all its processes: a new folder, one to resume, or one that an earlier attempt began."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import final

from lightning.fabric import Fabric

from garnish.bundles.checkpoint import MOST_BYTES
from garnish.checking.plain_data import Json
from garnish.errors import BundleError, OptionError
from garnish.files.regular import open_regular
from garnish.training.group_folder import GroupNote, begun_before, next_note, write_note
from garnish.training.processes import agreed
from garnish.training.run_folder import check_run, how_to_go_on, is_run, new_folder, working_in
from garnish.training.run_state import Saved, load_run, recipe_for_bundle, set_aside, write_args
from garnish.training.step import TrainingStep
from garnish.training.torchrun import Group

#: Seconds for which a network file system may show a machine what was there before.
_LATE = 40
#: Seconds until a process of an earlier attempt is gone: SIGTERM, SIGKILL, and the lease of its locks on a server.
_PATIENCE = 180


@final
class RunPlace:
    """The folder of a run.

    Under torchrun a run is known by ``--rdzv-id`` and ``out``: what is started with both again, on whichever machine,
    goes on with it. All processes must make one, as they agree here.

    Args:
        out: folder of a new run; None: it has none, unless ``resume`` is given.
        resume: folder of a run to go on with.
        fabric: the processes.

    Attributes:
        group: that of torchrun; None: others started the processes.
        where: the folder, for messages.
        told: the beginning of a line, that it goes on with a run that torchrun began before; else empty.
        warning: a line about torchrun's options; else empty.

    Raises:
        OptionError: restarts that could not find their run.
    """

    def __init__(self, out: str | Path | None, resume: str | Path | None, fabric: Fabric) -> None:
        self.group = Group.of(os.environ)
        self._fabric, self._out = fabric, None if out is None else Path(out)
        self._going_on = None if resume is None else Path(resume)
        self._emptied: Path | None = None  # begun before, and killed before its first checkpoint
        self._note: GroupNote | None = None
        self.where, self.told, self.warning = str(resume), "", ""
        if resume is not None or self._out is None or self.group is None:
            return
        self.warning = self.group.check_named(str(out))
        if self.group.is_named:
            self._note = next_note(self.group, str(out))
            self._look_for(self._out, self._note, self.group.run_id)

    def _look_for(self, out: Path, note: GroupNote, run_id: str) -> None:
        """Find what an earlier attempt left, on the first rank, whose folder may not be seen elsewhere yet."""
        found = begun_before(out, note) if self._fabric.is_global_zero else None
        kept = found is not None and is_run(found)
        if self._fabric.world_size > 1:
            found, kept = self._fabric.broadcast((found, kept))
        if found is None:
            return
        if not kept:
            self._emptied = found
            return
        self._going_on, self.where = found, f"{found}, begun under torchrun --rdzv-id {run_id}"
        self.told = f"torchrun --rdzv-id {run_id}: goes on with the run that it began in {found}; "

    def saved(self, held: ExitStack, step: TrainingStep) -> Saved | None:
        """Lock the folder until ``held`` is closed and open its checkpoint, in all processes the same; None: a new run.

        Raises:
            BundleError: no checkpoint, both are damaged, or machines that see different ones. OptionError: another
            process trains there.
        """
        folder = self._going_on
        if folder is None:
            return None
        if self._fabric.is_global_zero:
            check_run(folder)
            held.enter_context(working_in(folder, self._patience))
        found = self._agreed(folder, step)
        if found.line and self._fabric.is_global_zero:
            set_aside(folder)
        return found

    def taken(self, recipe: Mapping[str, Json], held: ExitStack) -> Path | None:
        """The folder, which a new run creates; locked until ``held`` is closed, with ``args.yaml``.

        Raises:
            OptionError: it cannot be made, or a machine does not see it. BundleError: it cannot be written to.
        """
        if self._going_on is not None or self._out is None:
            return self._going_on
        folder = ""
        if self._fabric.is_global_zero:
            recipe_for_bundle(recipe)  # refused before anything is made
            made = self._emptied or new_folder(self._out)
            held.enter_context(working_in(made, self._patience))
            if self._note is not None:
                write_note(made, self._note)  # a kill before this leaves an empty folder; the next is numbered on
            write_args(made, recipe)
            folder = str(made)
        if self._fabric.world_size > 1:
            folder = self._fabric.broadcast(folder)
        self._check_seen(Path(folder))
        return Path(folder)

    def stopped(self, number: int, step: int, folder: Path | None, *, by_command: bool) -> str:
        """A line on a run that was stopped by a signal, and how to go on; ``by_command``: its recipe names its data."""
        told = f"stopped by {signal.Signals(number or signal.SIGTERM).name} after step {step}"
        if self._note is not None and self.group is not None:
            return f"{told}; to go on: the same torchrun again, with its --rdzv-id {self.group.run_id}"
        return f"{told}; {how_to_go_on(folder, by_command=by_command)}"

    @property
    def _patience(self) -> float:
        return 0.0 if self.group is None else _PATIENCE

    def _agreed(self, folder: Path, step: TrainingStep) -> Saved:
        """The checkpoint that the first rank reads; others wait until they see the same."""
        fault: BundleError | None = None
        for _ in range(_LATE):
            found, mark = None, ""
            try:
                found = load_run(folder, step)
                mark = _digest(found)
            except BundleError as error:
                fault = error
            first = mark if self._fabric.world_size == 1 else self._fabric.broadcast(mark)
            if not first:
                break
            if not agreed(mark != first, self._fabric):
                assert found is not None
                return found
            time.sleep(1)
        raise fault or BundleError(
            f"{self.where}: the processes do not all see the checkpoint that the first one does; give a folder on a"
            " file system that all machines share"
        )

    def _check_seen(self, folder: Path) -> None:
        """Raise OptionError if a machine does not see the folder of the run: it could not go on, nor end."""
        if self.group is None or self.group.nodes == 1:
            return
        for _ in range(_LATE):
            seen = (folder / "args.yaml").is_file()
            if not agreed(not seen, self._fabric):
                return
            time.sleep(1)
        raise OptionError(
            f"out: {folder} is not seen by every machine; give a folder on a file system that all of them share"
        )


def _digest(saved: Saved) -> str:
    """SHA-256 of a checkpoint, with its name."""
    try:
        made = hashlib.sha256()
        with open_regular(saved.file.file, MOST_BYTES) as stream:
            while piece := stream.read(1 << 20):
                made.update(piece)
    except OSError as error:
        raise BundleError(f"{saved.file.file}: is gone while it is read ({error.strerror}); resume again") from error
    return f"{saved.file.file.name} {made.hexdigest()}"
