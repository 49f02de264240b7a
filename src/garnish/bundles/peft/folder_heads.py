"""The heads of an imported model: compared with the folder's files before they are built, filled from them after.

Heads come from garnish's own ``heads.safetensors``, and a SegFormer's also from PEFT's file, which then holds a
``decode_head`` that may have been trained further.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from garnish.backbones.backbone import Backbone
from garnish.bundles.peft.adapter_tensors import PeftFiles
from garnish.bundles.peft.decoder_names import decode_head_names
from garnish.bundles.peft.own_files import Sidecar
from garnish.bundles.peft.tensor_file import can_fill
from garnish.checking.allocations import AllocationLimit, charge
from garnish.errors import BundleError, OptionError, one_line, shown
from garnish.heads.head import Head
from garnish.heads.segformer import SegFormerDecoder, SegFormerHead
from garnish.heads.segformer_names import DECODE_HEAD
from garnish.model.decoders import heads_by_task, make_decoders
from garnish.model.model import Model
from garnish.tasks.task import Task

#: Bytes that a description of heads may ask for beside what the tensors of its files explain.
_ROOM = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class HeadsPlan:
    """Which tensors of the folder fill which ones of the model's heads.

    Attributes:
        own: names in ``heads.safetensors``, which are those of the model.
        saved: name in the model → name in PEFT's file.
    """

    own: frozenset[str]
    saved: Mapping[str, str]


def head_of(files: PeftFiles, head: Head | Mapping[str, Head] | None) -> Head | Mapping[str, Head] | None:
    """The head that was asked for; if none was, and the folder holds a ``decode_head``, that of its width."""
    fused = files.saved.get(f"{DECODE_HEAD}.linear_fuse.weight")
    if head is not None or not any(name.split(".")[0] == DECODE_HEAD for name in files.saved):
        return head
    shape = () if fused is None else files.shape(fused)
    try:
        return SegFormerHead(channels=shape[0]) if shape and shape[0] else SegFormerHead()
    except OptionError as error:
        raise BundleError(f"{files.where}: its {DECODE_HEAD} has {shape[0]} channels ({one_line(error)})") from error


def plan_heads(
    trunk: Backbone,
    tasks: Mapping[str, Task],
    head: Head | Mapping[str, Head] | None,
    files: PeftFiles,
    sidecar: Sidecar | None,
) -> HeadsPlan:
    """Compare heads with the headers of a folder's files; they are built on the meta device, without values.

    Args:
        trunk: whose maps they read.
        tasks: name → task.
        head: as for :func:`garnish.adapt`.
        files: PEFT's.
        sidecar: ours.

    Raises:
        BundleError: tensors that are missing, of other shapes, or that nothing would use.
    """
    if other := [name for name in files.saved if name.split(".")[0] != DECODE_HEAD]:
        raise BundleError(
            f"{files.where}: {shown(other[0], 200)} is of a module that was trained in full (modules_to_save) and no "
            "head of ours; leave it out by name (leave_out)"
        )
    try:
        with torch.device("meta"), _limit(files, head, sidecar):
            decoders = make_decoders(trunk, tasks, heads_by_task(head, tasks))
    except (RuntimeError, MemoryError) as error:
        raise BundleError(f"{files.where}: its heads cannot be built ({one_line(error, 160)})") from error
    own: frozenset[str] = frozenset()
    if sidecar is not None:
        held, targets = sidecar.heads.facts, {n: t for one in decoders.values() for n, t in one.tensors().items()}
        own = frozenset(name for name, target in targets.items() if name in held and can_fill(held[name], target))
        if tasks == sidecar.specs.tasks and (own != set(targets) or own != set(held)):
            first = next(iter(sorted(set(targets) ^ set(held))), "a tensor of another shape or type")
            raise BundleError(
                f"{sidecar.heads.file}: its heads do not fit their description ({shown(first, 200)}); write it again"
            )
    saved: dict[str, str] = {}
    if files.saved:
        able = [task for task in tasks if isinstance(decoders[task].module, SegFormerDecoder)]
        if sidecar is not None and sidecar.decode_head in able:
            able = [sidecar.decode_head]
        if len(able) != 1:
            raise BundleError(
                f"{files.where}: holds one {DECODE_HEAD}, and {len(able)} of the tasks have a SegFormerHead; "
                f"give one task with head=SegFormerHead(), or leave it out (leave_out {DECODE_HEAD})"
            )
        decoder = decoders[able[0]]
        facts = {name: files.file.facts[key] for name, key in files.saved.items()}
        theirs = decode_head_names(decoder.module, facts, files.where)
        stored = {id(tensor): name for name, tensor in decoder.tensors().items()}
        state = decoder.module.state_dict(keep_vars=True)
        saved = {stored[id(state[ours])]: files.saved[name] for ours, name in theirs.items()}
    return HeadsPlan(own=own, saved=saved)


def _limit(
    files: PeftFiles, head: Head | Mapping[str, Head] | None, sidecar: Sidecar | None
) -> AllocationLimit | contextlib.nullcontext[None]:
    """A bound on heads that a folder describes, by what its files hold of them; none on heads of the caller's."""
    if sidecar is None or head is not sidecar.specs.heads:
        return contextlib.nullcontext()
    held = [*sidecar.heads.facts.values(), *files.file.facts.values()]
    told = "it asks for far larger or far more heads than its files hold"
    most = _ROOM + 4 * sum(charge(math.prod(facts.shape)) for facts in held)
    error = BundleError(f"{sidecar.heads.file}: its heads do not fit their description ({told}); write it again")
    return AllocationLimit(most, error)


@torch.no_grad()
def fill_heads(model: Model, plan: HeadsPlan, tensors: Mapping[str, torch.Tensor], sidecar: Sidecar | None) -> None:
    """Copy what a plan says into a model's heads.

    Args:
        model: of the tasks and heads of the plan.
        plan: of :func:`plan_heads`.
        tensors: those of PEFT's file, by name.
        sidecar: ours, whose heads are read here.
    """
    targets = {name: tensor for task in model.tasks for name, tensor in model.head_tensors(task).items()}
    if sidecar is not None and plan.own:
        held = sidecar.heads.read()
        for name in plan.own:
            targets[name].copy_(held[name])
    for name, key in plan.saved.items():
        targets[name].copy_(tensors[key])
