"""The tasks that a manifest names: which output of the graph each has, and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.decodings.decoding import Decoding
from garnish.errors import BundleError, OptionError, shown
from garnish.registry import build
from garnish.runtime.manifest import ExportedTask


@final
@dataclass(frozen=True)
class TaskOutput:
    """One task.

    Attributes:
        output: name of the graph's output.
        decoding: what it means.
    """

    output: str
    decoding: Decoding


def task_outputs(tasks: Mapping[str, ExportedTask], outputs: Sequence[str], file: Path) -> dict[str, TaskOutput]:
    """The tasks of a manifest, by name.

    Args:
        tasks: as the manifest has them.
        outputs: of the graph.
        file: the manifest, for messages.

    Raises:
        BundleError: none, an output that the graph lacks or that two share, an unknown decoding or odd options of one.
    """
    found: dict[str, TaskOutput] = {}
    free = set(outputs)
    for name, told in tasks.items():
        at = f"{file}: tasks.{name}"
        try:
            decoding: Decoding = build("decodings", told["decoding"]["name"], told["decoding"]["options"])
        except OptionError as error:
            raise BundleError(f"{at}: {error}") from error
        if decoding.channels != told["channels"]:
            raise BundleError(
                f"{at}: has {told['channels']} channels, its decoding {decoding.channels}; export it again"
            )
        if told["output"] not in free:
            raise BundleError(f"{at}: output {shown(told['output'])} is not one of its own; export it again")
        free.remove(told["output"])
        found[name] = TaskOutput(told["output"], decoding)
    if not found:
        raise BundleError(f"{file}: names no task; export it again")
    return found
