"""What a model costs: parameters of encoder and of heads, bytes on disk, multiply-accumulates (MACs)."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from garnish.checking.plain_data import Json
from garnish.checking.recording import Recorder
from garnish.engine.owner import Owner
from garnish.engine.planes import named_bands
from garnish.errors import one_line, showable
from garnish.model.evaluation_mode import evaluating
from garnish.model.model import Model
from garnish.model.stored_size import stored_bytes
from garnish.registry import describe


def report(model: Model, size: tuple[int, int] | None = None) -> dict[str, Json]:
    """Count a model's parameters, bytes and MACs.

    Args:
        model: any model.
        size: (H, W) of the picture that MACs are counted for; None: 224², rounded up to the backbone's multiple.

    Returns:
        ``encoder_total``: parameters of the bare backbone. ``encoder_trainable``: of adapters and tuned backbone
        parameters, over all owners. ``decoder_trainable``: of the heads. ``decoder_by_task``. ``bundle_bytes``: the
        weights file of a bundle at float16. ``macs``: multiply-accumulates of one picture with all tasks, and
        ``macs_encoder`` of it, at ``macs_size``. ``backbone``, ``backbone_licence``, ``owners``. ``bands``: of owners
        whose pictures have bands of their own, which, and the shape of the tensor by which others than red, green and
        blue enter (counted in ``encoder_trainable``).
    """
    multiple = model.backbone.multiple
    size = size or (-(-224 // multiple) * multiple,) * 2
    frozen = model.backbone.frozen_tensors()
    encoder = {n: t for owner in model.owners for n, t in owner.tensors().items()}
    heads = {"+".join(names): _count(model.head_tensors(names[0])) for names, _ in model.decoders.each()}
    macs, macs_encoder = count_macs(model, size)
    return {
        "backbone": model.backbone.name,
        "backbone_licence": model.backbone.licence,
        "encoder_total": _count(frozen),
        "encoder_trainable": _count(encoder),
        "decoder_trainable": sum(heads.values()),
        "decoder_by_task": heads,
        "bundle_bytes": stored_bytes(model.own_tensors()),
        "macs": macs,
        "macs_encoder": macs_encoder,
        "macs_size": list(size),
        "owners": {o.name: [describe(m) for m in o.methods] for o in model.owners if o.parent is None},
        "bands": {o.name: _bands(o) for o in model.owners if o.parent is None and not o.bands.is_rgb},
    }


def _bands(owner: Owner) -> dict[str, Json]:
    shape = None if owner.others is None else list(owner.others.weight.shape)
    return {"names": list(owner.bands.names), "filters": shape}


def _count(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values() if isinstance(t, nn.Parameter))


def flop_counter() -> FlopCounterMode:
    """Torch's counter, with a formula for attention on a CPU, which torch lacks and would count as nothing."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={attention: _attention_flops})


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *others: object, **options: object
) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


def count_macs(model: Model, size: tuple[int, int]) -> tuple[int, int]:
    """MACs of matrix products for one picture of ``size`` with all tasks: (whole model, encoder alone)."""
    decoded = [task for task, head in model.decoders.options.items() if head.decodes]
    whole = len(decoded) == len(model.tasks)  # else the heads that there are run apart from the trunk
    run = model if whole else model.features
    with evaluating(model), torch.no_grad():
        with flop_counter() as counter:
            for bands, names in model.served.by_bands(model.tasks):
                run(torch.zeros(1, len(bands.names), *size, device=model.device), names)
        counted = counter.get_total_flops() // 2
        with flop_counter() as counter:
            owner_of = {task: owner for owner in model.owners for task in owner.tasks}
            maps = {owner: _maps(model, size) for owner in set(owner_of.values())}
            model.decode({task: maps[owner_of[task]] for task in decoded}, size)
        heads = counter.get_total_flops() // 2
        return (counted, counted - heads) if whole else (counted + heads, counted)


def _maps(model: Model, size: tuple[int, int]) -> list[Tensor]:
    mean: Tensor = model.mean  # type: ignore[assignment]
    return [
        mean.new_zeros(1, f.channels, round(size[0] / f.stride), round(size[1] / f.stride))
        for f in model.backbone.features
    ]


def bytes_for_backward(forward: Callable[[], Tensor], left_out: Iterable[Tensor]) -> int:
    """Bytes alive after a forward pass while its loss alone is held: what the backward pass keeps, of all storages.

    Args:
        forward: computes a loss, which is dropped afterwards.
        left_out: tensors that exist already (parameters, the batch), whose storages do not count.
    """
    recorder = Recorder(left_out)
    with recorder:
        loss = forward()
    kept = recorder.alive_bytes - recorder.start_bytes - loss.nbytes
    del loss
    return kept


def describe_model(model: Model) -> str:
    """Several lines of text: where adapters sit, parameters of encoder and of heads, bytes on disk."""
    facts = report_without_macs(model)
    lines = [f"{model.backbone.name}: {facts['total']:,} parameters, frozen ({model.backbone.licence})"]
    for owner in model.owners:
        methods = " + ".join(repr(m) for m in owner.methods)
        sites = {at.site.name for at in owner.places.values()}
        roles = sorted({".".join(s.split(".")[-2:]) for s in sites})
        where = f"at {len(sites)} sites ({', '.join(roles)})" if sites else "without adapters"
        lines.append(f"  {owner.name}: {methods} {where}, {_count(owner.tensors()):,} parameters")
        if owner.parent is None and not owner.bands.is_rgb:
            lines.append(f"    takes {len(owner.bands.names)} bands: {named_bands(owner.bands.names)}{_filters(owner)}")
    for tasks, _ in model.decoders.each():
        described = [f"  {task}: {one_line(repr(model.tasks[task]))}" for task in tasks]
        decoder = model.decoders.of(tasks[0])
        described[-1] += f", {decoder.options!r}, {_count(decoder.tensors()):,} parameters"
        lines += described
        if decoder.started:
            lines.append(f"    {decoder.started}")
    lines.append(
        f"  trained: encoder {facts['encoder']:,}, heads {facts['heads']:,}; "
        f"a bundle is {facts['bytes'] / 1e6:.2f} MB at float16"
    )
    return "\n".join(lines)


def _filters(owner: Owner) -> str:
    if owner.others is None:
        return ""
    weight, at = owner.others.weight, owner.others.site.name
    return f"; {weight.shape[1]} of them by {weight.numel():,} of these parameters, at {at}"


def model_page(model: Model) -> str:
    """A few lines of HTML for notebooks: the tasks in a table, and :func:`describe_model` to unfold."""
    facts = report_without_macs(model)
    rows = ""
    for tasks, _ in model.decoders.each():
        decoder = model.decoders.of(tasks[0])
        for task in tasks:
            methods = " + ".join(type(m).__name__ for m in model.served.owner(task).root.methods)
            cells = (task, type(model.tasks[task]).__name__, methods, type(decoder.options).__name__)
            rows += f"<tr>{''.join(f'<td>{html.escape(showable(cell))}</td>' for cell in cells)}</tr>"
    head = "".join(f"<th>{title}</th>" for title in ("name", "task", "method", "head"))
    told = html.escape(showable(describe_model(model), keep="\n"))
    name = html.escape(showable(model.backbone.name))
    trained = facts["encoder"] + facts["heads"]
    return (
        f"<div><strong>{name}</strong>, {facts['total']:,} parameters, frozen; trained {trained:,}"
        f"<table><tr>{head}</tr>{rows}</table><details><summary>all of it</summary><pre>{told}</pre></details></div>"
    )


def report_without_macs(model: Model) -> dict[str, int]:
    """The counts that need no forward pass."""
    encoder = sum(_count(owner.tensors()) for owner in model.owners)
    return {
        "total": _count(model.backbone.frozen_tensors()),
        "encoder": encoder,
        "heads": sum(_count(model.head_tensors(names[0])) for names, _ in model.decoders.each()),
        "bytes": stored_bytes(model.own_tensors()),
    }
