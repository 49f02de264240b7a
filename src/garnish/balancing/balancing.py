"""Base classes of loss balancing, which combines the tasks' losses of a step into the one that is minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from torch import Tensor, nn

from garnish.checking.arguments import Options
from garnish.checking.plain_data import Json
from garnish.errors import OptionError
from garnish.registry import build
from garnish.tasks.task import Task


class Balance(nn.Module, ABC):
    """Combines the tasks' losses of a step into the one that is minimised.

    It is a module, so that its parameters are optimised and its buffers are checkpointed; neither is stored in
    bundles, since only training needs them. Parameters of fewer than two dimensions get no weight decay.

    In a run of several processes each gets the same losses, those over all pictures of the step, bit for bit. So a
    parameter has the same gradient in all of them, that of one process with all pictures, and gradients are not
    exchanged. With ``accumulate`` the results of a step's forward passes are averaged, as the losses are.
    """

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Combined loss, (), from task → () loss, for the tasks with labels in this step (at least one)."""

    def learnt_weights(self) -> dict[str, float]:
        """Task → current factor of its loss, for the logs; empty if the factors are fixed."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Balancing(Options, ABC):
    """The options of a balancing method. Subclasses are frozen dataclasses; :meth:`build` makes the module."""

    @abstractmethod
    def build(self, tasks: Mapping[str, Task]) -> Balance:
        """The module for the trained tasks.

        Raises:
            OptionError: the options do not fit the tasks.
        """

    def __call__(self, *losses: object) -> NoReturn:
        """Options are no module: :meth:`build` makes it.

        Raises:
            OptionError: always.
        """
        name = type(self).__name__
        raise OptionError(f"{name}: holds options; write weigh = gn.{name}(…).build(model.tasks), then weigh(losses)")


def balancing_of(given: str | Mapping[str, Json] | None, where: str = "train.balance") -> Balancing:
    """Parse the option: None, task → weight, the name of a balancing method, or ``{name: …}`` with its options.

    Raises:
        OptionError: no such method, no such option, or an invalid weight.
    """
    if given is None:
        given = {}
    if isinstance(given, str):
        given = {"name": given}
    options = dict(given)
    name = options.pop("name") if isinstance(given.get("name"), str) else None
    try:
        found: Balancing = build("balancing", name or "Fixed", options if name else {"weights": options}, where=where)
    except OptionError as error:
        text = str(error)
        if name is None:  # the weights are given directly in the option
            text = text.replace(f"{where}.weights", where, 1)
        raise OptionError(text if text.startswith(where) else f"{where}: {text}") from None
    return found
