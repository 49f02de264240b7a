"""Recipe: what to train, read from YAML and command-line overrides, as plain values and as objects built from them.

``docs/decisions/003-recipes-and-command-line.md`` explains why no library is used for this.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from garnish.checking.plain_data import Json
from garnish.errors import OptionError, shown, suggest
from garnish.files.path_text import given_path
from garnish.files.strict_yaml import read_yaml
from garnish.recipes.overrides import set_dotted
from garnish.recipes.paths import as_list, from_base, inlined, relocated
from garnish.recipes.task_names import named_alone, task_mapping

if TYPE_CHECKING:  # torch is imported where something is built, not where --help is asked for
    from garnish.data.dataset import Dataset
    from garnish.engine.adapter import Method
    from garnish.heads.head import Head
    from garnish.recipes.backbone_choice import BackboneChoice
    from garnish.recipes.trunk_choice import TrunkChoice
    from garnish.tasks.task import Task
    from garnish.training.train_options import TrainOptions

T = TypeVar("T")

SECTIONS = ("backbone", "trunk", "adapter", "head", "tasks", "data", "train", "onto", "out")
#: Keys of a file: ``compare`` is read by ``garnish compare`` only; ``base``, which a run writes to its ``args.yaml``,
#: is the folder that paths are relative to, itself relative to the file.
IN_FILE = (*SECTIONS, "compare", "base")
#: Sections in which a name alone means ``{name: …}``.
NAMED = ("backbone", "adapter", "head")


@final
@dataclass(frozen=True)
class Recipe:
    """The sections of a recipe, after the overrides.

    Attributes:
        source: the file, or "command line".
        plain: the sections as plain values; every path is absolute or relative to the working directory.
        overridden: the dotted keys that the command line set.
        written: for a file with ``base``: each path of ``plain`` → its text in the file.
        allow_loggers: classes that ``train.log`` may name besides the known ones; never from the file.
    """

    source: str
    plain: Mapping[str, Json]
    overridden: tuple[str, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    allow_loggers: tuple[str, ...] = ()

    @property
    def out(self) -> str:
        """Folder of the run."""
        given = self.plain.get("out")
        if not isinstance(given, str) or not given:
            raise self.fault("out", f"{shown(given)}; set the folder of the run, e.g. out: runs/camvid")
        self._located(lambda: given_path(given, "out"), "out")
        return given

    @property
    def onto(self) -> list[str]:
        """Bundles, or a finished model's name, that the new tasks are added to; usually none."""
        given = self.plain.get("onto")
        found = as_list(given)
        if given is not None and not (found and all(isinstance(one, str) and one for one in found)):
            raise self.fault("onto", f"{shown(given)} names no bundle; name one, or leave it out")
        return found

    @property
    def task_options(self) -> dict[str, dict[str, Json]] | None:
        """The data's tasks to use, with options to override (loss, weight, …); None: all unchanged."""
        given = self.plain.get("tasks")
        if given is None:
            return None
        found = given if isinstance(given, Mapping) else named_alone(given)
        if not found or not all(isinstance(n, str) and isinstance(o, Mapping | None) for n, o in found.items()):
            raise self.fault(
                "tasks",
                f"{shown(given, 80)}; name some of the data's tasks, e.g. "
                "[seg, depth], or tasks with options, e.g. {seg: {dice: 1.0}}",
            )
        return {name: dict(options or {}) for name, options in found.items()}

    @property
    def backbone(self) -> BackboneChoice | None:
        """The section ``backbone``; None if the recipe has none."""
        from garnish.recipes.backbone_choice import BackboneChoice
        from garnish.registry import construct

        given = self.plain.get("backbone")
        if given is None:
            return None
        named = self._named("backbone", given)
        return self._located(lambda: construct(BackboneChoice, named, where="backbone"), "backbone")

    @property
    def trunk(self) -> TrunkChoice | None:
        """The section ``trunk``; None if the recipe has none."""
        from garnish.recipes.trunk_choice import TrunkChoice
        from garnish.registry import construct

        given = self.plain.get("trunk")
        if not isinstance(given, Mapping | None):
            raise self.fault("trunk", f"{shown(given)}; write e.g. trunk: {{extra: mean}}")
        return None if given is None else self._located(lambda: construct(TrunkChoice, given, where="trunk"), "trunk")

    @property
    def methods(self) -> list[Method]:
        """The methods, one or several; LoRA if the recipe names none."""
        given = self.plain.get("adapter", "LoRA")
        if isinstance(given, list):
            return [self._build("adapters", f"adapter.{number}", entry) for number, entry in enumerate(given)]
        return [self._build("adapters", "adapter", given)]

    @property
    def head(self) -> Head | dict[str, Head] | None:
        """One head, or one per task; None if the recipe names none."""
        given = self.plain.get("head")
        if given is None:
            return None
        if isinstance(given, Mapping) and "name" not in given:
            return {str(task): self._build("heads", f"head.{task}", entry) for task, entry in given.items()}
        head: Head = self._build("heads", "head", given)
        return head

    @property
    def options(self) -> TrainOptions:
        """The section ``train``: how to train."""
        from garnish.registry import construct
        from garnish.training.loggers import check_allowed
        from garnish.training.train_options import TrainOptions

        given = self.plain.get("train")
        if not isinstance(given, Mapping):
            raise self.fault("train", f"{shown(given)}; write e.g. train: {{steps: 300, batch_size: 4}}")
        made = self._located(lambda: construct(TrainOptions, given, where="train"), "train")
        self._located(lambda: check_allowed(made.log or (), self.allow_loggers), "train")
        return made

    def fault(self, section: str, text: str) -> OptionError:
        """An error as one line that names each thing once: the file, what the command line set, and the key.

        Args:
            section: dotted, what is read or built.
            text: what is wrong; if it begins with a dotted key of the section and ``: ``, that key is named.
        """
        key, colon, rest = text.partition(": ")
        if not colon or not f"{key}.".startswith(f"{section}."):
            key, rest = section, text
        inside = [k for k in self.overridden if f"{k}.".startswith(f"{key}.")]
        around = [k for k in self.overridden if key.startswith(f"{k}.")]
        if not inside and not around:
            return OptionError(f"{self.source}: {key}: {rest}")
        given = ", ".join(f"--{k}" for k in inside + around)
        place = given if self.source == COMMAND_LINE else f"{self.source} with {given}"
        return OptionError(f"{place}: {rest}" if inside else f"{place}: {key}: {rest}")

    def open(self, split: str) -> Dataset:
        """One split of the data, with the tasks asked for."""
        from garnish.data.sources import open_data

        given = self.plain.get("data")
        if given is None:
            raise self.fault("data", "none given; set a data description, a folder, or scenes")
        options = self.task_options
        return open_data(given, split, tasks=None if options is None else list(options))

    def tasks_of(self, data: Dataset) -> dict[str, Task]:
        """The data's tasks with the options that the recipe overrides."""
        from garnish.registry import construct, options_of

        found = dict(data.tasks)
        for name, options in (self.task_options or {}).items():
            if name in found and options:
                section = f"tasks.{name}"
                task, merged = found[name], options_of(found[name]) | options
                found[name] = self._located(functools.partial(construct, type(task), merged, where=section), section)
        return found

    def resolved(self) -> dict[str, Json]:
        """All sections with every option spelled out, JSON-ready; stored with a run and its bundles.

        Raises:
            OptionError: an invalid name or option; no model is built and no weights are read.
        """
        from garnish.registry import flat, options_of

        choice, methods, head = self.backbone, self.methods, self.head
        found: dict[str, Json] = {}
        if choice is not None:
            found["backbone"] = options_of(choice)
        if (trunk := self.trunk) is not None:
            found["trunk"] = options_of(trunk)
        found["adapter"] = flat(methods[0]) if len(methods) == 1 else [flat(m) for m in methods]
        if head is not None:
            found["head"] = {t: flat(h) for t, h in head.items()} if isinstance(head, dict) else flat(head)
        if (tasks := self.task_options) is not None:
            found["tasks"] = tasks
        found["data"] = self.plain.get("data")
        found["train"] = options_of(self.options)
        if self.onto:
            found["onto"] = self.onto
        return {**found, "out": self.out}

    def _named(self, section: str, given: Json) -> dict[str, Json]:
        if isinstance(given, str):
            return {"name": given}
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            top = section.split(".")[0]
            example = {"backbone": "mit_b0", "adapter": "{name: LoRA, rank: 8}"}.get(top, "SegFormerHead")
            raise self.fault(section, f"{shown(given)} has no name; write e.g. {top}: {example}")
        return dict(given)

    def _build(self, kind: str, section: str, given: Json) -> Any:
        from garnish.registry import build

        options = self._named(section, given)
        name = options.pop("name")
        return self._located(lambda: build(kind, name, options, where=section), section)

    def _located(self, make: Callable[[], T], section: str) -> T:
        """Call ``make()``; its errors then name the recipe."""
        try:
            return make()
        except OptionError as error:
            raise self.fault(section, str(error)) from None


COMMAND_LINE = "command line"


def read_recipe(
    file: str | os.PathLike[str] | None,
    overrides: Mapping[str, Json] | None = None,
    allow_loggers: Sequence[str] = (),
) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        file: YAML; None: only the overrides.
        overrides: dotted key → value, as :mod:`garnish.recipes.overrides` gives them. A section that is set as
            a whole loses the options the file gave it; ``train.steps`` and ``train.epochs`` replace each other.
        allow_loggers: classes that ``train.log`` may name besides the known ones.

    Raises:
        OptionError: a file that cannot be read, an unknown section, or an override of a key that cannot exist.
    """
    plain: dict[str, Json] = {}
    written: dict[str, str] = {}
    if file is not None:
        given = read_yaml(given_path(file, "recipe"))
        if not isinstance(given, dict):
            raise OptionError(f"{file}: {shown(given)} is no recipe; it needs keys {', '.join(SECTIONS)}")
        for key in given:
            if key not in IN_FILE:
                raise OptionError(f"{file}: unknown key {shown(key)}{suggest(str(key), IN_FILE)}")
        base = given.pop("base", None)
        if base is None:
            plain = relocated(given, Path(file).parent, str(file))
        elif isinstance(base, str):
            start = given_path(file, "recipe").resolve().parent / given_path(base, f"{file}: base")
            plain, written = from_base(given, start, tuple(overrides or ()), str(file))
        else:
            raise OptionError(f"{file}: base: {shown(base)}; name the folder where the recipe's paths start")
    found = dict(overrides or {})
    for key in sorted(found, key=lambda k: k.count(".")):
        if key.startswith("data."):
            plain["data"] = inlined(plain.get("data"))
        if key.startswith("tasks."):
            plain["tasks"] = task_mapping(plain)
        if key in NAMED and isinstance(found[key], str) and "," in found[key]:
            set_dotted(plain, key, found[key].split(","))
        else:
            set_dotted(plain, key, found[key], names=NAMED)
    for one, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
        if one in found and other not in found:
            plain["train"].pop(other.split(".")[1], None)
    return Recipe(str(file) if file is not None else COMMAND_LINE, plain, tuple(found), written, tuple(allow_loggers))
