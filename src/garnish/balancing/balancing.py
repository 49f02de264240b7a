"""What a way of balancing is: it turns the losses of a step into the one that is minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from garnish.checking.arguments import Options
from garnish.errors import OptionError
from garnish.registry import build
from garnish.tasks.task import Task


class Balance(nn.Module, ABC):
    """Turns the losses of a step into the one that is minimised.

    A module, so that what it learns (its parameters) is optimized and what it keeps (its buffers) is checkpointed;
    neither enters bundles, for only training needs them. Parameters of fewer than two dimensions do not decay.

    In a run of several processes every one sees the same losses, namely those over all pictures of the step, bit for
    bit. So a parameter has the same gradient on all of them, that of one process with all pictures, and it is not
    exchanged. With ``accumulate`` the results of a step's forward passes are averaged, as the losses are.
    """

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Task → () loss, for the tasks that this step has labels of (at least one); returns ()."""

    def learnt_weights(self) -> dict[str, float]:
        """Task → the factor of its loss at this moment, for the logs; empty where factors are fixed."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Balancing(Options, ABC):
    """The options of a way of balancing. Subclasses are frozen dataclasses; :meth:`build` makes the module."""

    @abstractmethod
    def build(self, tasks: Mapping[str, Task]) -> Balance:
        """The module for the trained tasks.

        Raises:
            OptionError: where the options do not fit the tasks.
        """


def balancing_of(given: str | Mapping[str, Any] | None, where: str = "train.balance") -> Balancing:
    """What an option says: nothing, task → weight, the name of a way of balancing, or ``{name: …}`` with its options.

    Raises:
        OptionError: no such way, no such option, or a weight that is none.
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
        if name is None:  # the weights stand in the option itself
            text = text.replace(f"{where}.weights", where, 1)
        raise OptionError(text if text.startswith(where) else f"{where}: {text}") from None
    return found
