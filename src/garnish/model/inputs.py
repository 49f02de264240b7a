"""The trunk's input of some pictures, made once for all owners that take it alike.

Shape letters: I pictures, C bands, E bands beside red, green and blue, H W pixels.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import final

from torch import SymInt, Tensor

from garnish.engine.input_pictures import check_rgb, prepared
from garnish.engine.open_sizes import rounded_up
from garnish.engine.owner import Owner
from garnish.errors import OptionError
from garnish.model.served import Served


@final
class Inputs:
    """The pictures of one call.

    Args:
        images: (I, C, H, W) as :meth:`garnish.model.model.Model.forward` takes them.
        served: the tasks there are.
        tasks: whose pictures they are.
        mean: (1, 3, 1, 1), of the trunk.
        std: likewise.
        multiple: sides of the input are multiples of this many pixels.

    Raises:
        OptionError: tasks of different bands, or pictures of others.
    """

    def __init__(
        self, images: Tensor, served: Served, tasks: Sequence[str], mean: Tensor, std: Tensor, multiple: int
    ) -> None:
        self._images, self._mean, self._std, self._multiple = images, mean, std, multiple
        self._owners = [served.owner(task).root for task in tasks or served.tasks]
        self._made: dict[Hashable, Tensor] = {}
        if not tasks and images.ndim == 4 and not images.shape[0]:  # nothing of nothing: of whatever bands
            return
        served.bands_of(tasks)
        planes = self._owners[0].planes if self._owners else None
        if planes is None:
            check_rgb(images)
        else:
            planes.check(images, ", ".join(tasks))

    @property
    def is_rgb(self) -> bool:
        """Whether they are 8-bit RGB, or floats made of it."""
        return bool(self._owners) and self._owners[0].planes is None

    @property
    def sides(self) -> tuple[int | SymInt, int | SymInt]:
        """(H', W') of the input."""
        height, width = self._images.shape[-2:]
        return rounded_up(height, self._multiple), rounded_up(width, self._multiple)

    def of(self, owner: Owner) -> Tensor:
        """(I, 3 + E, H', W'): normalised and padded for an owner."""
        planes, key = owner.root.planes, owner.root.given.key
        if key not in self._made:
            if planes is None:
                self._made[key] = prepared(self._images, self._mean, self._std, self._multiple)
            else:
                self._made[key] = planes(self._images, self._multiple)
        return self._made[key]

    def of_all(self) -> Tensor:
        """The same for all of the tasks; raises :class:`OptionError` where they normalise differently."""
        if len({owner.given.key for owner in self._owners}) > 1:
            raise OptionError(
                "prepare: the tasks normalise their pictures by other statistics; name those of one owner"
            )
        if not self._owners:
            return prepared(self._images, self._mean, self._std, self._multiple)
        return self.of(self._owners[0])
