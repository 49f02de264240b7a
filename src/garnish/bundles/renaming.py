"""Loading a bundle's tasks under other names, so that bundles whose tasks have the same names live in one model.

A bundle is read and checked by the names in its files; only what is built of it has the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

from torch import Tensor

from garnish.errors import OptionError, shown, suggest
from garnish.heads.head import JointHead
from garnish.model.decoders import Decoder
from garnish.model.served import Addition


@final
class Renaming:
    """Names in a bundle's files → names in a model.

    Args:
        names: task → its new name; tasks that are left out keep theirs. None: all do.
        tasks: the bundle's.
        where: its path, for messages.

    Attributes:
        new: task of the bundle → its name in the model, in the bundle's order.

    Raises:
        OptionError: an unknown task, or one name for two tasks.
    """

    def __init__(self, names: Mapping[str, str] | None, tasks: Iterable[str], where: str) -> None:
        self.new = {task: task for task in tasks}
        for task, name in (names or {}).items():
            if task not in self.new:
                raise OptionError(f"names: {where} has no task {shown(task)}{suggest(task, self.new)}")
            self.new[task] = name
        self._old = {name: task for task, name in self.new.items()}
        for task, name in self.new.items():
            if self._old[name] != task:
                raise OptionError(f"names: {task} and {self._old[name]} of {where} both become {name!r}; choose others")

    def old(self, name: str) -> str:
        """The name that a task of the model has in the bundle."""
        return self._old[name]

    def tensors(self, made: Addition) -> dict[str, Tensor]:
        """The tensors of what was built, by the names in the bundle's files."""
        found: dict[str, Tensor] = {}
        for owner in made.members():
            for name, tensor in owner.tensors().items():
                kind, _, rest = name.split(".", 2)
                found[f"{kind}.{self._owner(owner.name)}.{rest}"] = tensor
        for decoder in made.decoders.values():
            for name, tensor in decoder.tensors().items():
                found[self._of_decoder(decoder, name)] = tensor
        return found

    def _owner(self, name: str) -> str:
        """``a+b`` or ``a+b:a``, of old names."""
        return ":".join("+".join(map(self.old, part.split("+"))) for part in name.split(":"))

    def _of_decoder(self, decoder: Decoder, name: str) -> str:
        kind, tasks, rest = name.split(".", 2)
        parts = rest.split(".")
        if isinstance(decoder.options, JointHead):  # its modules task_NAME hold the parts of single tasks
            own = {f"task_{task}": f"task_{self.old(task)}" for task in decoder.tasks}
            parts = [own.get(part, part) for part in parts]
        return ".".join([kind, self._owner(tasks), *parts])
