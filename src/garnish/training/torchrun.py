"""What torchrun tells the processes that it starts, and following it when it is gone. Nothing here needs torch.

A restarted process knows nothing of its forerunner but torchrun's ``--rdzv-id``: ``TORCHELASTIC_RESTART_COUNT`` stays 0
where a machine came back, as that is no failure, and where the whole job was started anew. So the id names the run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from garnish.errors import OptionError, shown

#: torchrun's own name for a group that was given none.
_UNNAMED = ("", "none")
#: Characters of an id, at most.
_LONGEST = 1000
#: Seconds between looks at the parent, and those between SIGTERM and SIGKILL, as torchrun has them.
_LOOK, _GRACE = 0.5, 30.0


@final
@dataclass(frozen=True)
class Group:
    """The processes of one torchrun, on one machine or several.

    Attributes:
        run_id: ``--rdzv-id``.
        nodes: machines, or rather agents: one torchrun each.
        local: processes of each.
        restarts: how often a group that failed is started again.
    """

    run_id: str
    nodes: int
    local: int
    restarts: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Group | None:
        """The group of a process with these variables; None: torchrun did not start it.

        Raises:
            OptionError: an id of more than 1,000 characters.
        """
        run_id = environment.get("TORCHELASTIC_RUN_ID")
        if run_id is None:
            return None
        if len(run_id) > _LONGEST:
            raise OptionError(f"torchrun: --rdzv-id has {len(run_id):,} characters; give one of at most {_LONGEST:,}")
        nodes, local = environment["GROUP_WORLD_SIZE"], environment["LOCAL_WORLD_SIZE"]
        return cls(run_id, int(nodes), int(local), int(environment.get("TORCHELASTIC_MAX_RESTARTS", "0")))

    @property
    def is_named(self) -> bool:
        """Whether a group that is started again can be told from another one."""
        return self.run_id not in _UNNAMED

    def check_named(self, out: str) -> str:
        """Refuse restarts without a name, which would begin a new folder each time.

        Args:
            out: folder of the run, as given.

        Returns:
            A warning for several machines without one; else empty.

        Raises:
            OptionError: restarts are asked for, and there is no name.
        """
        if self.is_named:
            return ""
        remedy = "give torchrun --rdzv-id NAME, the same on all machines and at each start of this run"
        if self.restarts:
            raise OptionError(
                f"torchrun: --max-restarts {self.restarts} without --rdzv-id: a restart could not tell that"
                f" {shown(out, 100)} is its own and would begin another folder; {remedy}"
            )
        if self.nodes == 1:
            return ""
        return f"torchrun has no --rdzv-id, so a machine that comes back begins a new folder; to go on, {remedy}"


@contextmanager
def followed(group: Group | None) -> Iterator[None]:
    """Within a ``with`` block this process ends when its torchrun is gone: SIGTERM, and SIGKILL after 30 s.

    torchrun does the same as long as it lives; a killed one leaves its processes behind, which would go on training
    in a folder that the next ones need. ``group``: None: nobody is followed.
    """
    parent, over = os.getppid(), threading.Event()

    def follow() -> None:
        while not over.wait(_LOOK):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                if not over.wait(_GRACE):  # it waits for others that are gone as well
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    if group is None or os.name != "posix":
        yield
        return
    threading.Thread(target=follow, name="garnish follows torchrun", daemon=True).start()
    try:
        yield
    finally:
        over.set()
