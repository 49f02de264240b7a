"""``Series``: base class of data sets of procedural scenes, which are rendered when they are asked for.

The seed, the index, the size and the style of a scene determine it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from garnish.checking.plain_data import integers
from garnish.data.dataset import Dataset, Sample
from garnish.data.scenes.composition import STYLES
from garnish.errors import OptionError, shown, suggest

#: Scenes of a series that a run goes through: the order of an epoch is kept in memory.
MOST_SCENES = 10**7

#: Sides of a scene: at 4,096² rendering takes some gigabytes.
SceneSide = Annotated[int, integers(8, 4_096)]


class Series(Dataset):
    """A series of scenes, kept in memory once they are rendered if ``keep``.

    Raises:
        OptionError: an unknown style; the message begins with ``what`` the scenes are.
    """

    def __init__(
        self, what: str, count: int, size: int | tuple[int, int], seed: int, style: str, *, keep: bool
    ) -> None:
        if style not in STYLES:
            raise OptionError(f"{what}: unknown style {shown(style)}{suggest(style, STYLES)}")
        self.count, self.size, self.seed, self.style, self.keep = count, size, seed, style, keep
        self._kept: dict[int, Sample] = {}

    @abstractmethod
    def render(self, index: int) -> Sample:
        """Scene ``index``, which is there."""

    @property
    def sides(self) -> tuple[int, int]:
        """(H, W)."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.check_index(index)
        if index in self._kept:
            return self._kept[index]
        sample = self.render(index)
        if self.keep:
            self._kept[index] = sample
        return sample

    def check_index(self, index: int) -> None:
        """Raise IndexError where there is no such scene."""
        if not 0 <= index < self.count:
            raise IndexError(index)

    @property
    def checks_labels(self) -> bool:
        """True: rendered labels are always valid."""
        return True
