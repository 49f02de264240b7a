"""The decoders (heads) of a model, each for one task or shared by several: building them and running them.

Shape letters: n pictures that ask for a task, C channels, H W grid or pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

from torch import Tensor, nn

from garnish.engine.maps import Maps
from garnish.engine.open_sizes import cropped, rounded_up
from garnish.engine.remaking import remaking
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError, shown, suggest
from garnish.heads.head import Head, JointHead, is_plain, pyramid_info, resample_pyramid
from garnish.heads.layers.batch_norm import accept_single_values
from garnish.heads.layers.upsample import upsample
from garnish.heads.linear import LinearHead
from garnish.tasks.task import Task

T = TypeVar("T")


@final
@dataclass(frozen=True, eq=False)
class Decoder:
    """A decoder module with its tasks and options.

    Attributes:
        tasks: the tasks that share it, in the order it was built for.
        module: feature maps → raw outputs.
        options: the head options it was built from.
        started: what it was initialised from, in one line; empty for random values or a bundle.
    """

    tasks: tuple[str, ...]
    module: nn.Module
    options: Head
    started: str

    @property
    def interacts(self) -> bool:
        """Whether it reads the maps of all its tasks at once."""
        return isinstance(self.options, JointHead) and self.options.interacts

    @property
    def key(self) -> str:
        """Its key among the submodules of :class:`Decoders`."""
        return f"task_{self.tasks[0]}" if len(self.tasks) == 1 else f"tasks_{'+'.join(self.tasks)}"

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by stored name."""
        at = f"heads.{'+'.join(self.tasks)}"
        return {f"{at}.{leaf}": tensor for leaf, tensor in self.module.state_dict(keep_vars=True).items()}


class Decoders(nn.Module):
    """All decoders of a model.

    Attributes:
        by_task: task → its decoder, in the order of the model; replaced as a whole when tasks are added or removed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_task: Mapping[str, Decoder] = {}
        self._made = nn.ModuleDict()

    def add(self, made: Mapping[str, Decoder]) -> None:
        """Add the decoders of new tasks, as :func:`make_decoders` returns them."""
        self._made.update({decoder.key: decoder.module for decoder in made.values()})
        self.by_task = {**self.by_task, **made}

    def remove(self, tasks: Collection[str]) -> None:
        """Remove the decoders of these tasks; all tasks that share one must be named."""
        for key in {self.by_task[name].key for name in tasks}:
            del self._made[key]
        self.by_task = without(self.by_task, tasks)

    @property
    def options(self) -> dict[str, Head]:
        """Task → the options of its decoder."""
        return {name: decoder.options for name, decoder in self.by_task.items()}

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Task → the tasks that share its decoder, itself included, in the order it was built for."""
        return {name: decoder.tasks for name, decoder in self.by_task.items()}

    @property
    def started(self) -> dict[str, str]:
        """Task → what its decoder was initialised from, in one line; empty for random values or a bundle."""
        return {name: decoder.started for name, decoder in self.by_task.items()}

    def of(self, task: str) -> Decoder:
        """The decoder of a task; raises :class:`OptionError` for an unknown task."""
        if task not in self.by_task:
            raise OptionError(f"no task {shown(task)}{suggest(task, self.by_task)}")
        return self.by_task[task]

    def each(self) -> Iterator[tuple[tuple[str, ...], nn.Module]]:
        """Yield (tasks, module) of every decoder, in the order of their first tasks."""
        for decoder in dict.fromkeys(self.by_task.values()):
            yield decoder.tasks, decoder.module

    def tensors(self, task: str) -> dict[str, Tensor]:
        """Parameters and buffers of a task's decoder by stored name, including those of tasks that share it."""
        return self.of(task).tensors()

    def reached_by(self, task: str) -> set[str]:
        """Stored names of the decoder's tensors that a task's loss reaches: not the parts of other tasks."""
        others = {f"task_{name}" for name in self.of(task).tasks if name != task}
        return {name for name in self.tensors(task) if others.isdisjoint(name.split("."))}

    def check_whole(self, tasks: Collection[str], what: str) -> None:
        """Raise :class:`OptionError` if only some of the tasks that share a decoder are among ``tasks``."""
        for decoder in dict.fromkeys(self.by_task[name] for name in tasks):
            left = [name for name in decoder.tasks if name not in tasks]
            if left:
                there = ", ".join(name for name in decoder.tasks if name in tasks)
                raise OptionError(f"{what}: {there} shares a decoder with {', '.join(left)}; name all of them")


def without(mapping: Mapping[str, T], names: Collection[str]) -> dict[str, T]:
    """A copy of a mapping without some of its keys."""
    kept = dict(mapping)
    for name in set(names):
        del kept[name]
    return kept


def make_decoders(
    trunk: Trunk,
    tasks: Mapping[str, Task],
    heads: Mapping[str, Head],
    groups: Sequence[Sequence[str]] | None = None,
) -> dict[str, Decoder]:
    """Build the decoders of new tasks: task → decoder, in the order of ``tasks``.

    Args:
        trunk: the trunk whose maps they read.
        tasks: name → task.
        heads: name → options.
        groups: which tasks share a joint decoder; None: those with equal options.
    """
    made: dict[str, Decoder] = {}
    for group in _groups(heads) if groups is None else [*groups, *_others(heads, groups)]:
        options = heads[group[0]]
        if any(heads[name] != options for name in group[1:]):
            raise OptionError(f"head: {', '.join(group)} share a decoder and must name the same options")
        if len(group) > 1 and not isinstance(options, JointHead):
            raise OptionError(f"head: {', '.join(group)} share a decoder, but {type(options).__name__} serves one")
        wide = pyramid_info(trunk.features) if options.pyramid and is_plain(trunk.features) else trunk.features
        if isinstance(options, JointHead):
            module = options.build_joint(wide, {name: tasks[name].channels for name in group})
        else:
            module = options.build(wide, tasks[group[0]].channels)
        accept_single_values(module)
        kept, line = options.begin(module, trunk.weights_source)
        made |= dict.fromkeys(group, Decoder(tuple(group), module, kept, line))
    return {name: made[name] for name in tasks}


def check_decodes(decoders: Mapping[str, Decoder], tasks: Collection[str]) -> None:
    """Raise :class:`OptionError` for the first task that has no decoder of ours."""
    for name in tasks:
        if not decoders[name].options.decodes:
            raise OptionError(
                f"task {name!r} has no decoder ({type(decoders[name].options).__name__}): give"
                f" model.features(images, [{name!r}]) to one of your own, or name tasks that have one"
            )


def at_picture_size(x: Tensor, size: tuple[int, int], multiple: int) -> Tensor:
    """(n, C, h, w) on the grid of padded pictures → (n, C, H, W): resized to their sides, the padding cut off.

    Args:
        x: what a decoder made of the maps.
        size: (H, W) of the pictures.
        multiple: their padded sides are multiples of this many pixels.
    """
    return cropped(upsample(x, (rounded_up(size[0], multiple), rounded_up(size[1], multiple))), *size)


def needed(decoders: Mapping[str, Decoder], tasks: Collection[str]) -> tuple[str, ...]:
    """The tasks whose maps are needed to decode some tasks, in the order of the model.

    Args:
        decoders: task → decoder, in the order of the model.
        tasks: the tasks to decode, in the same order.
    """
    if not any(decoders[name].interacts for name in tasks):
        return tuple(tasks)
    wanted = {other for name in tasks for other in (decoders[name].tasks if decoders[name].interacts else (name,))}
    return tuple(name for name in decoders if name in wanted)


def decode_maps(
    decoders: Mapping[str, Decoder], maps: Mapping[str, Sequence[Tensor]], trunk: Trunk, size: tuple[int, int]
) -> dict[str, Tensor]:
    """Feature maps of each task → its raw output (n, C, H, W), cropped to the pictures' own size.

    Args:
        decoders: task → decoder.
        maps: task → maps of n pictures, finest first; if a decoder interacts, of all tasks that share it.
        trunk: the trunk that computed them.
        size: (H, W) of the pictures.
    """
    check_decodes(decoders, maps)
    resampled: dict[tuple[int, ...], list[Tensor]] = {}

    def ready(task: str) -> list[Tensor]:
        own = list(maps[task])
        if not (decoders[task].options.pyramid and is_plain(trunk.features)):
            return own
        key = tuple(map(id, own))
        if key not in resampled:  # tasks that share maps also share the resampled ones
            resampled[key] = resample_pyramid(own)
        return resampled[key]

    out: dict[str, Tensor] = {}
    wanted = dict.fromkeys(decoders[name] for name in maps)
    compiled = any(decoder.module._compiled_call_impl is not None for decoder in wanted)
    with remaking("fast" if compiled else trunk.memory):
        for decoder in wanted:
            if isinstance(decoder.options, JointHead):
                out |= decoder.module({name: ready(name) for name in decoder.tasks if name in maps})
            else:
                out[decoder.tasks[0]] = decoder.module(ready(decoder.tasks[0]))
    if odd := [name for name, x in out.items() if not isinstance(x, Tensor) or x.ndim != 4]:
        made_by = type(decoders[odd[0]].options).__name__
        raise OptionError(f"head of task {odd[0]!r}: {made_by} gave no tensor (n, C, h, w); see docs/add-a-head.md")
    return {name: at_picture_size(x, size, trunk.multiple) for name, x in out.items()}


@final
class Outputs:
    """Collects the raw outputs of one forward pass, which may consist of several passes through the trunk.

    Args:
        decoders: task → decoder.
        trunk: the trunk that computes the maps.
        size: (H, W) of the pictures.
    """

    def __init__(self, decoders: Mapping[str, Decoder], trunk: Trunk, size: tuple[int, int]) -> None:
        self._decoders = decoders
        self._trunk = trunk
        self._size = size
        self._done: dict[str, Tensor] = {}
        self._waiting: dict[str, list[Tensor]] = {}

    def read(self, maps: Maps) -> None:
        """Decode the tasks of one pass; tasks of a joint decoder together if their maps come from one owner."""
        turns: dict[tuple[Decoder, int], list[str]] = {}
        for task, wanted in maps.tasks.items():
            turns.setdefault((self._decoders[task], id(wanted.owner)), []).append(task)
        for (decoder, _), tasks in turns.items():
            if decoder.interacts:
                self._waiting |= maps.of(tasks)
            else:
                self._done |= decode_maps(self._decoders, maps.of(tasks), self._trunk, self._size)

    def all(self) -> dict[str, Tensor]:
        """Task → raw output, after all passes were read."""
        return self._done | decode_maps(self._decoders, self._waiting, self._trunk, self._size)


def heads_by_task(head: Head | Mapping[str, Head] | None, tasks: Mapping[str, Task]) -> dict[str, Head]:
    """Task → head, from one head for all tasks (None: ``LinearHead()``) or one for each by name.

    Raises:
        OptionError: a head for an unknown task, or a task without a head.
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
