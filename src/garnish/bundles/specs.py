"""The specification of a model's methods, tasks and heads, and its form in files: names and options as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from garnish.backbones.backbone import Backbone
from garnish.bundles.bundle_json import BackboneFacts
from garnish.checking.plain_data import Json
from garnish.engine.adapter import Method
from garnish.engine.attach import OwnerSpec
from garnish.errors import OptionError
from garnish.heads.head import Head
from garnish.model.model import Model
from garnish.pictures.given_bands import GivenBands
from garnish.registry import SpecFacts, build, describe
from garnish.tasks.task import Task


@final
@dataclass(frozen=True)
class Specs:
    """What is added to a bare backbone: see :meth:`garnish.model.model.Model.build`.

    Attributes:
        owners: what each is made of; empty if the file does not say.
        tasks: name → task, in the order of the owners.
        heads: name → options of its head.
        groups: for each shared decoder its tasks, in the order it was built for.
    """

    owners: Sequence[OwnerSpec]
    tasks: Mapping[str, Task]
    heads: Mapping[str, Head]
    groups: Sequence[Sequence[str]]

    @classmethod
    def of(cls, model: Model, tasks: Sequence[str]) -> Specs:
        """The specification of some tasks of a model."""
        roots = [owner for owner in model.owners if owner.parent is None]
        owners = [OwnerSpec(o.methods, tuple(t for t in o.tasks if t in tasks), o.given) for o in roots]
        groups = [names for names, _ in model.decoders.each() if len(names) > 1 and names[0] in tasks]
        heads = model.decoders.options
        kept = [spec for spec in owners if spec.tasks]
        return cls(kept, {n: model.tasks[n] for n in tasks}, {n: heads[n] for n in tasks}, groups)

    @classmethod
    def read(cls, facts: Mapping[str, Json], where: str = "") -> Specs:
        """Build the objects that facts name; ``where`` is their place, for messages.

        Raises:
            OptionError: an unknown name or option, or a ``per_task`` method shared by several tasks.
        """
        at = f"{where}: " if where else ""
        listed = facts.get("owners", ())
        owners = [
            OwnerSpec([_built("adapters", m) for m in owner["methods"]], tuple(owner["tasks"]), _given(owner, number))
            for number, owner in enumerate(listed)
        ]
        for methods, names, _ in owners:
            if len(names) > 1 and any(m.per_task for m in methods):
                raise OptionError(f"a per_task method is shared by {', '.join(names)}")
        tasks = {n: facts["tasks"][n] for spec in owners for n in spec.tasks} if listed else facts["tasks"]
        return cls(
            owners,
            {n: _built("tasks", t, at and f"{at}{n}") for n, t in tasks.items()},
            {n: _built("heads", t["head"], at and f"{at}{n}.head") for n, t in tasks.items()},
            facts.get("decoders", ()),
        )

    def renamed(self, new: Mapping[str, str]) -> Specs:
        """The same of tasks that have other names."""
        return Specs(
            [OwnerSpec(methods, tuple(new[name] for name in tasks), given) for methods, tasks, given in self.owners],
            {new[name]: task for name, task in self.tasks.items()},
            {new[name]: head for name, head in self.heads.items()},
            [[new[name] for name in group] for group in self.groups],
        )

    def facts(self) -> dict[str, Json]:
        """The facts for :meth:`read`: ``owners``, ``tasks`` with the ``head`` of each, and any shared ``decoders``.

        Each task also has its number of channels, its labels and their colours, for readers without garnish.
        """
        told: dict[str, Json] = {
            "owners": list(map(_owner_facts, self.owners)),
            "tasks": self.tasks_and_heads(),
        }
        for name, task in self.tasks.items():
            legend = task.legend()
            palette = {label: list(colour) for label, colour in legend.items()}
            told["tasks"][name] |= {"channels": task.channels, "labels": list(legend), "palette": palette}
        return told | ({"decoders": list(map(list, self.groups))} if self.groups else {})

    def all(self) -> list[tuple[str, Method | Task | Head]]:
        """Everything that is described, each with its kind."""
        methods = [("adapters", method) for spec in self.owners for method in spec.methods]
        return [*methods, *(("tasks", t) for t in self.tasks.values()), *(("heads", h) for h in self.heads.values())]

    def tasks_and_heads(self) -> dict[str, Json]:
        """Task name → the class name and options of the task, and of its head."""
        return {n: describe(task) | {"head": describe(self.heads[n])} for n, task in self.tasks.items()}


def backbone_facts(trunk: Backbone) -> BackboneFacts:
    """The facts that identify the backbone a file belongs to."""
    return {
        "name": trunk.name,
        "options": trunk.options,
        "taps": trunk.taps_at,
        "fingerprint": trunk.fingerprint(),
        "licence": trunk.licence,
        "weights_source": trunk.weights_source,
    }


def _owner_facts(spec: OwnerSpec) -> dict[str, Json]:
    told: dict[str, Json] = {"tasks": list(spec.tasks), "methods": list(map(describe, spec.methods))}
    return told if spec.given.bands.is_rgb else told | {"pictures": spec.given.facts()}


def _given(owner: Mapping[str, Json], number: int) -> GivenBands:
    """The pictures that an owner's tasks take."""
    facts = owner.get("pictures")
    return GivenBands() if facts is None else GivenBands.read(facts, f"owners[{number}].pictures", OptionError)


def _built(kind: str, facts: SpecFacts, where: str = "") -> Any:
    return build(kind, facts["name"], facts["options"], where=where)
