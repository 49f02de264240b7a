"""Opening the data that a recipe or the command line names: a description, a folder, a list of them, or scenes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, final

from garnish import registry
from garnish.checking.arguments import Options
from garnish.checking.bounds import MOST_SEED
from garnish.checking.plain_data import Json, integers
from garnish.data.dataset import Dataset
from garnish.data.folder import folder
from garnish.data.joined import join
from garnish.data.scenes.material_scenes import MaterialScenes
from garnish.data.scenes.scenes import Scenes
from garnish.data.scenes.series import MOST_SCENES, SceneSide
from garnish.data.shards.shard_dataset import ShardDataset
from garnish.data.shards.shard_description import in_shards, shard_description
from garnish.errors import DataError, OptionError, shown, suggest

SCENES, MATERIALS = "scenes", "material-scenes"

#: Scenes of a split.
NumScenes = Annotated[int, integers(1, MOST_SCENES)]


@final
@dataclass(frozen=True, kw_only=True)
class SceneOptions(Options):
    """Procedural scenes as data: ``{name: scenes, train: 200, …}``, or ``{name: material-scenes, …}`` in ten bands.

    Attributes:
        train: number of scenes in the split train.
        val: number of scenes in val.
        test: number of scenes in test.
        size: side of the pictures, or (height, width), in pixels.
        seed: of the split train; val and test use the next two numbers, so that no two splits share a scene.
        style: "pretrain" or "demo".
        bands: of material-scenes: "ten", or "rgb", which do not show the materials; scenes are rgb.
    """

    train: NumScenes = 200
    val: NumScenes = 40
    test: NumScenes = 40
    size: SceneSide | tuple[SceneSide, SceneSide] = 128
    seed: Annotated[int, integers(0, MOST_SEED - 2)] = 0
    style: str = "demo"
    bands: Literal["ten", "rgb"] | None = None


def open_data(
    given: Json, split: str = "train", *, tasks: Sequence[str] | None = None, base: Path | None = None
) -> Dataset:
    """Open one split of the data that a recipe names.

    Args:
        given: ``scenes`` or ``material-scenes``, a YAML description or a folder; the content of such a file as a
            mapping, or ``{name: scenes, …}``; or a list of these, which are joined.
        split: train, val, test or another split of the data.
        tasks: names of the tasks to read; None: all. Parts of a list may lack some of them.
        base: folder that a mapping's paths are relative to; None: the working directory.

    Raises:
        DataError, OptionError: as :func:`garnish.data.folder.folder`.
    """
    if isinstance(given, list | tuple):
        if not given:
            raise OptionError("data: an empty list; name a data description, a folder or scenes")
        if any(isinstance(part, list | tuple) for part in given):
            raise OptionError("data: a list within a list; name every description or folder in one list")
        known = [open_data(part, split, base=base) for part in given]
        if tasks is None:
            return join(*known)
        held = {task for part in known for task in part.tasks}
        for task in tasks:
            if task not in held:
                raise OptionError(f"data: unknown task {shown(task)}{suggest(task, held)}")
        wanted = ([t for t in tasks if t in part.tasks] for part in known)
        return join(
            *(open_data(part, split, tasks=names, base=base) for part, names in zip(given, wanted, strict=True))
        )
    name = given.get("name") if isinstance(given, Mapping) else given
    if isinstance(name, str) and name in (SCENES, MATERIALS):
        options = {k: v for k, v in given.items() if k != "name"} if isinstance(given, Mapping) else {}
        return _scenes(name, registry.construct(SceneOptions, options, where=f"data ({name})"), split, tasks)
    if not isinstance(given, str | Path | Mapping):
        raise OptionError(f"data: {shown(given)}; give a YAML description, a folder, or scenes")
    if (found := in_shards(given, base)) is not None:
        return ShardDataset(shard_description(*found), split, tasks)
    return folder(given, split, tasks=tasks, root=base)


def _scenes(name: str, options: SceneOptions, split: str, tasks: Sequence[str] | None) -> Dataset:
    counts = {"train": options.train, "val": options.val, "test": options.test}
    if split not in counts:
        raise DataError(f"{name}: no split {shown(split)}{suggest(split, counts)}")
    seed = options.seed + list(counts).index(split)
    # kept in memory up to a few hundred megabytes, so that later epochs need no rendering
    side = options.size if isinstance(options.size, int) else math.sqrt(math.prod(options.size))
    keep = counts[split] * side**2 < 500 * 128**2
    if name == MATERIALS:
        made = MaterialScenes(
            counts[split],
            size=options.size,
            seed=seed,
            style=options.style,
            bands=options.bands or "ten",
            keep=keep,
        )
        for task in tasks or ():
            if task not in made.tasks:
                raise OptionError(f"{name}: unknown task {shown(task)}{suggest(task, made.tasks)}")
        return made
    if options.bands not in (None, "rgb"):
        raise OptionError(f"data ({name}): bands: {options.bands!r} is for {MATERIALS}; leave it out")
    wanted = {} if tasks is None else {"tasks": tuple(tasks)}
    return Scenes(counts[split], size=options.size, seed=seed, style=options.style, keep=keep, **wanted)
