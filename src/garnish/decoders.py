"""The decoders of a model: one a task, or one of several tasks that share it.

Shape letters: n pictures that want a task, C channels, H W grid or pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.errors import OptionError, suggest
from garnish.heads.batch_norm import accept_single_values
from garnish.heads.head import Head, JointHead, is_plain, pyramid_info, resample_pyramid
from garnish.heads.linear import LinearHead
from garnish.sizes import cropped, rounded_up
from garnish.tasks.task import Task
from garnish.upsample import upsample


class Decoders(nn.Module):
    """What turns feature maps into outputs.

    Attributes:
        options: task → the options of its decoder.
        started: task → what its decoder was started from, in one line; empty where that was random or a bundle.
        groups: task → the tasks that share its decoder, in the order it was built for; itself alone where none do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, Head] = {}
        self.started: dict[str, str] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.made = nn.ModuleDict()

    def add(
        self,
        backbone: Backbone,
        tasks: Mapping[str, Task],
        heads: Mapping[str, Head],
        groups: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Build the decoders of new tasks.

        Args:
            backbone: the trunk whose maps they read.
            tasks: name → task.
            heads: name → options.
            groups: which tasks share a joint decoder; left out, those that name equal options.
        """
        group_of: dict[str, tuple[str, ...]] = {}
        for group in _groups(heads) if groups is None else [*groups, *_others(heads, groups)]:
            options = heads[group[0]]
            if any(heads[name] != options for name in group[1:]):
                raise OptionError(f"head: {', '.join(group)} share a decoder and must name the same options")
            if len(group) > 1 and not isinstance(options, JointHead):
                raise OptionError(f"head: {', '.join(group)} share a decoder, but {type(options).__name__} serves one")
            features = backbone.features
            wide = pyramid_info(features) if options.pyramid and is_plain(features) else features
            if isinstance(options, JointHead):
                module = options.build_joint(wide, {name: tasks[name].channels for name in group})
            else:
                module = options.build(wide, tasks[group[0]].channels)
            accept_single_values(module)
            kept, line = options.begin(module, backbone.weights_source)
            self.made[_key(group)] = module
            for name in group:
                self.options[name], self.started[name], group_of[name] = kept, line, tuple(group)
        self.groups |= {name: group_of[name] for name in tasks}  # in the order of the model, whatever that of groups

    def of(self, task: str) -> nn.Module:
        """The module that decodes a task; raises :class:`OptionError` where there is no such task."""
        return self.made[_key(self._group(task))]

    def _group(self, task: str) -> tuple[str, ...]:
        if task not in self.groups:
            raise OptionError(f"no task {task!r}{suggest(task, self.groups)}")
        return self.groups[task]

    def each(self) -> Iterator[tuple[tuple[str, ...], nn.Module]]:
        """(tasks, module) of every decoder, in the order of their first tasks."""
        for group in dict.fromkeys(self.groups.values()):
            yield group, self.made[_key(group)]

    def tensors(self, task: str) -> dict[str, Tensor]:
        """Parameters and buffers of a task's decoder, those of all who share it, by stored name."""
        name = "+".join(self._group(task))
        return {f"heads.{name}.{leaf}": t for leaf, t in self.of(task).state_dict(keep_vars=True).items()}

    def reached_by(self, task: str) -> set[str]:
        """Stored names of the tensors that a task's loss reaches: without the parts of others."""
        others = {f"task_{name}" for name in self.groups[task] if name != task}
        return {name for name in self.tensors(task) if others.isdisjoint(name.split("."))}

    def check_whole(self, tasks: Collection[str], what: str) -> None:
        """Raise :class:`OptionError` where only some of the tasks that share a decoder are among ``tasks``."""
        for group, _ in self.each():
            there = [name for name in group if name in tasks]
            if there and len(there) < len(group):
                left = ", ".join(name for name in group if name not in tasks)
                raise OptionError(f"{what}: {', '.join(there)} shares a decoder with {left}; name all of them")

    def interacts(self, task: str) -> bool:
        """Whether the task's decoder reads the maps of all its tasks at once."""
        options = self.options[task]
        return isinstance(options, JointHead) and options.interacts

    def needed(self, tasks: Collection[str]) -> tuple[str, ...]:
        """The tasks whose maps are needed for some, in the order of the model."""
        wanted = {other for name in tasks for other in (self.groups[name] if self.interacts(name) else (name,))}
        return tuple(name for name in self.groups if name in wanted)

    def turns(self, tasks: Collection[str], owner_of: Mapping[str, int]) -> list[list[str]]:
        """Which tasks of a pass are decoded together: those of one joint decoder whose maps are of one owner."""
        found: dict[tuple[tuple[str, ...], int], list[str]] = {}
        for name in tasks:
            found.setdefault((self.groups[name], owner_of[name]), []).append(name)
        return list(found.values())

    def decode(
        self, maps: Mapping[str, Sequence[Tensor]], backbone: Backbone, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Feature maps of each task → its raw output (n, C, H, W), cropped to the pictures' own size.

        Args:
            maps: task → maps of n pictures, finest first; where a decoder interacts, of all tasks that share it.
            backbone: what gave them.
            size: of the pictures.
        """
        resampled: dict[tuple[int, ...], list[Tensor]] = {}

        def ready(task: str) -> list[Tensor]:
            own = list(maps[task])
            if not (self.options[task].pyramid and is_plain(backbone.features)):
                return own
            key = tuple(map(id, own))
            if key not in resampled:  # tasks that read the same maps go on reading the same
                resampled[key] = resample_pyramid(own)
            return resampled[key]

        out: dict[str, Tensor] = {}
        for group in dict.fromkeys(self.groups[name] for name in maps):
            module = self.made[_key(group)]
            if isinstance(self.options[group[0]], JointHead):
                out |= module({name: ready(name) for name in group if name in maps})
            else:
                out[group[0]] = module(ready(group[0]))
        padded = (rounded_up(size[0], backbone.multiple), rounded_up(size[1], backbone.multiple))
        return {name: cropped(upsample(x, padded), *size) for name, x in out.items()}


def heads_by_task(head: Head | Mapping[str, Head] | None, tasks: Mapping[str, Task]) -> dict[str, Head]:
    """One head for all tasks (``LinearHead()`` when None), or one for each by name, as task → head.

    Raises:
        OptionError: a head for an unknown task, or none for one.
    """
    if head is None or isinstance(head, Head):
        return {name: head or LinearHead() for name in tasks}
    for name in head:
        if name not in tasks:
            raise OptionError(f"head: there is no task {name!r}; tasks: {', '.join(tasks)}")
    missing = [name for name in tasks if name not in head]
    if missing:
        raise OptionError(f"head: task {missing[0]!r} has none; give one for each of {', '.join(tasks)}")
    return dict(head)


def _groups(heads: Mapping[str, Head]) -> list[tuple[str, ...]]:
    found: dict[Head | str, list[str]] = {}
    for name, head in heads.items():
        found.setdefault(head if isinstance(head, JointHead) else name, []).append(name)
    return [tuple(names) for names in found.values()]


def _others(heads: Mapping[str, Head], groups: Sequence[Sequence[str]]) -> list[tuple[str]]:
    named = {name for group in groups for name in group}
    return [(name,) for name in heads if name not in named]


def _key(group: Sequence[str]) -> str:
    return f"task_{group[0]}" if len(group) == 1 else f"tasks_{'+'.join(group)}"
