"""What a card says of a bundle, read from its description alone; texts are a stranger's and not made showable yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

from garnish.bundles.bundle_json import BundleFacts
from garnish.checking.plain_data import Json
from garnish.registry import build
from garnish.tasks.task import Task

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_THRESHOLD = re.compile(r"best_(\w+_)?threshold")
_WEIGHTS_FILE = re.compile(r".*\.(safetensors|pth|pt|bin)")


@final
@dataclass(frozen=True)
class MeasuredHow:
    """How the metrics of a bundle came about, as far as it says.

    Attributes:
        data: the data set's name, or the last part of its path; None: not stated.
        split: the part of it that was measured.
        lines: further facts, each a name, what is said with "{}" for the value, and the value.
        by: what trained and measured it: a run of a recipe, or of Python.
    """

    data: str | None
    split: str | None
    lines: tuple[tuple[str, str, object], ...]
    by: str = "garnish train"


def described_tasks(facts: BundleFacts) -> dict[str, Task]:
    """The tasks of a bundle by name."""
    return {
        name: build("tasks", told["name"], told["options"], where=f"tasks.{name}")
        for name, told in facts["tasks"].items()
    }


def plain_metrics(facts: BundleFacts, task: str) -> dict[str, float]:
    """Metric → value of a task, but for what was measured nowhere and the metrics of single classes."""
    return {
        name: value for name, value in facts["metrics"].get(task, {}).items() if value is not None and "/" not in name
    }


def quality_metrics(facts: BundleFacts, task: str, of: Task) -> dict[str, float]:
    """Those of the plain metrics that say how good a task is: not the thresholds that were chosen on the way."""
    chosen = set(of.thresholds.values())
    return {
        name: value
        for name, value in plain_metrics(facts, task).items()
        if name not in chosen and not _THRESHOLD.fullmatch(name)
    }


def base_model(facts: BundleFacts) -> str | None:
    """The Hub id that the trunk's weights have; None: they are a file, or in the package."""
    source = facts["backbone"]["weights_source"]
    is_id = _HUB_ID.fullmatch(source) and not _WEIGHTS_FILE.fullmatch(source) and not Path(source).exists()
    return source if is_id else None


def protocol_of(facts: BundleFacts, data_name: str | None = None) -> MeasuredHow:
    """What the recipe in a bundle of a run says of its measuring; ``data_name``: the data, where somebody says it."""
    extra = facts.get("extra", {})
    recipe = extra.get("recipe")
    if not isinstance(recipe, Mapping):
        return MeasuredHow(data_name, None, ())
    train = recipe.get("train")
    told: Mapping[str, Json] = train if isinstance(train, Mapping) else {}
    size, limit = told.get("eval_size"), told.get("eval_limit")
    whole, every = "pictures and labels at their own size", "all of the split"
    lines: list[tuple[str, str, object]] = [
        ("size", whole if size is None else "pictures and labels resized to {} (height, width)", size),
        ("pictures", every if limit is None else "at most {}, evenly spaced", limit),
        ("step", "{}, the best of the run", extra.get("step", "not stated")),
    ]
    lines += [(name, "{}", told[key]) for name, key in _TRAINED if told.get(key) is not None]
    by = "garnish train" if "data" in recipe else "gn.fit"  # whose data are objects, which no recipe names
    return MeasuredHow(data_name or _data_name(recipe.get("data")), "val", tuple(lines), by)


#: What a card says of the training, and the option that says it.
_TRAINED = (
    ("seed", "seed"),
    ("steps", "steps"),
    ("epochs", "epochs"),
    ("pictures in a step", "batch_size"),
    ("learning rate", "lr"),
    ("balance of the losses", "balance"),
)


def _data_name(data: Json) -> str | None:
    """A name for data in a recipe that tells no folder of the machine it was written on."""
    if isinstance(data, list):
        return " + ".join(name for part in data if (name := _data_name(part)) is not None) or None
    if isinstance(data, Mapping):
        found = data.get("name") or data.get("layout") or data.get("path")
        return None if found is None else _data_name(str(found))
    return None if data is None else PurePosixPath(str(data).replace("\\", "/")).stem or None
