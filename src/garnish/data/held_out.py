"""Holding out a part of the training pictures as validation pictures, frames of one video together."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

from garnish import registry
from garnish.checking.arguments import Options
from garnish.checking.plain_data import Json, reals
from garnish.errors import DataError, OptionError, one_line, plural, shown


@final
@dataclass(frozen=True, kw_only=True)
class HoldOut(Options):
    """What ``hold_out`` of a description says.

    Attributes:
        share: of the training pictures that become the split val.
        by: "group": pictures whose names differ only in their last number stay together, as frames of a video must;
            "picture": each by itself, for pictures that have nothing to do with each other.
    """

    share: Annotated[float, reals(0, 0.5, above=True)]
    by: Literal["group", "picture"] = "group"


@final
@dataclass(frozen=True)
class HeldOut:
    """Which pictures are held out.

    Attributes:
        names: of the pictures that are val.
        pictures: number of all.
        groups: the groups that are val.
        all_groups: number of all groups.
        asked: the share that was asked for.
    """

    names: frozenset[str]
    pictures: int
    groups: tuple[str, ...]
    all_groups: int
    asked: float

    def told(self, split: str) -> str:
        """What a user is told of the split train or val."""
        held = len(self.names)
        if split != "val":
            return (
                f"hold_out: {held} of {self.pictures} training pictures are the split val and are not trained on;"
                f" {self.pictures - held} are left"
            )
        shown_groups = ", ".join(shown(group) for group in self.groups[:4]) + (", …" if len(self.groups) > 4 else "")
        return (
            f"hold_out: {held} of {plural(self.pictures, 'training picture')} are the split val"
            f" ({held / self.pictures:.1%}, asked for {self.asked:.1%}): {len(self.groups)} of {self.all_groups} groups"
            f" of names, {one_line(shown_groups, 200)}"
        )


def read_hold_out(given: Json, where: str) -> HoldOut:
    """``0.2``, or ``{share: 0.2, by: picture}``.

    Raises:
        OptionError: anything else.
    """
    if not isinstance(given, Mapping):
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise OptionError(f"{where}: {shown(given)}; write a share such as 0.2, or {{share: 0.2, by: picture}}")
        given = {"share": given}
    made: HoldOut = registry.construct(HoldOut, dict(given), where=where)
    return made


def held_out(names: Sequence[str], asked: HoldOut, source: str) -> HeldOut:
    """Choose the pictures of val, by their names alone: the same ones whatever the order of files and the machine.

    Groups come in the order of a digest of their names. One is taken if that brings the number of pictures nearer to
    the share, so that pictures that are added later move few others. At least one group is taken, and one is left.

    Args:
        names: of all training pictures.
        asked: what the description says.
        source: for the message.

    Raises:
        DataError: there is one group only.
    """
    group = dict(zip(names, names if asked.by == "picture" else groups_of(names), strict=True))
    sizes = Counter(group.values())
    if len(sizes) < 2:
        told = plural(len(names), "training picture")
        if asked.by == "picture" or len(names) < 2:
            raise DataError(f"{source}: hold_out: {told} cannot be parted; add pictures, or leave it out")
        raise DataError(
            f"{source}: hold_out: the names of all {told} differ only in their last number ({min(names)} … "
            f"{max(names)}), as frames of one video do; if they are none, write `hold_out: {{share: {asked.share:g},"
            " by: picture}}`, else list the frames of val: `splits: {train: train.txt, val: val.txt}`"
        )
    taken: list[str] = []
    wanted, count = asked.share * len(names), 0
    for name in sorted(sizes, key=lambda name: (_place(name), name)):
        if abs(count + sizes[name] - wanted) < abs(count - wanted) and len(taken) < len(sizes) - 1:
            taken.append(name)
            count += sizes[name]
    if not taken:
        taken = [min(sizes, key=lambda name: (sizes[name], _place(name)))]
    chosen = set(taken)
    held = frozenset(name for name in names if group[name] in chosen)
    return HeldOut(held, len(names), tuple(sorted(taken)), len(sizes), asked.share)


def groups_of(names: Sequence[str]) -> list[str]:
    """The group of each name: its folder, and what stands before the last number of its last part.

    What all names end in is left aside: a last part that is the same everywhere (``frame_0001/rgb``), and an ending
    (``_leftImg8bit``) that ends in no digit and follows a number.
    """
    while (
        len(names) > 1 and all("/" in name for name in names) and len({name.rpartition("/")[2] for name in names}) == 1
    ):
        names = [name.rpartition("/")[0] for name in names]
    stems = [name.rpartition("/")[2] for name in names]
    common = _common_end(stems) if len(stems) > 1 else ""
    if common[-1:].isdigit() or not all(stem[: len(stem) - len(common)][-1:].isdigit() for stem in stems):
        common = ""
    found = []
    for name, stem in zip(names, stems, strict=True):
        bare = stem.removesuffix(common) if common else stem
        number = re.search(r"[0-9]+(?=[^0-9]*$)", bare)
        found.append(name[: len(name) - len(stem)] + (bare[: number.start()] if number else bare))
    return found


def _common_end(texts: Sequence[str]) -> str:
    """What all texts end in."""
    backwards = sorted(text[::-1] for text in texts)  # what the first and the last share, all do
    same = 0
    while same < min(len(backwards[0]), len(backwards[-1])) and backwards[0][same] == backwards[-1][same]:
        same += 1
    return backwards[0][:same][::-1]


def _place(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest()
