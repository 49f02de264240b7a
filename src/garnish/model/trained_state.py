"""A small state dict of what a model trains, and reading one back: all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from garnish.backbones.backbone import Backbone
from garnish.errors import BundleError, shown, suggest

#: Name of the entry that says which trunk a state belongs to.
TRUNK = "backbone.fingerprint"


def trunk_mark(trunk: Backbone) -> dict[str, Tensor]:
    """The entry of a trunk: the 32 bytes of its fingerprint; none of a trunk in half precision or without values.

    Float32, though bytes would do: states are averaged and converted like any tensors, and equal whole numbers to 255
    stay what they are.
    """
    held = [tensor for tensor in trunk.frozen_tensors().values() if tensor.is_floating_point()]
    # values that were rounded have another fingerprint than those that they were made of
    if any(tensor.is_meta or tensor.dtype not in (torch.float32, torch.float64) for tensor in held):
        return {}
    own = bytes.fromhex(trunk.fingerprint(anew=False))
    return {TRUNK: torch.tensor(list(own), dtype=torch.float32, device=held[0].device if held else None)}


def check_trunk(state: Mapping[str, object], trunk: Backbone) -> None:
    """Raise :class:`BundleError` for a state of another trunk; one that does not say which it is of is let through."""
    told, own = state.get(TRUNK), trunk_mark(trunk).get(TRUNK) if TRUNK in state else None
    if own is None:
        return
    if not isinstance(told, Tensor) or told.shape != own.shape:
        raise BundleError(f"load_trained_state: {TRUNK} is no fingerprint; give what trained_state() gave")
    if not torch.equal(told.detach().float().round().cpu(), own.cpu()):
        raise BundleError(
            f"load_trained_state: the state was trained on another backbone than this {trunk.name} (other weights, or"
            " random ones of another seed), so its adapters would not fit; build the model with the backbone (weights=)"
            f" that it was trained on, or leave out its {TRUNK!r} to load it all the same"
        )


def check_nesting(state: Mapping[str, object]) -> None:
    """Raise :class:`BundleError` for a dict of dicts, as people write to keep a decoder of their own beside."""
    nested = [str(name) for name, value in state.items() if isinstance(value, Mapping)]
    if nested and "state_dict" not in nested:
        listed = shown(", ".join(nested), 80)[1:-1]
        raise BundleError(
            f"load_trained_state: the state looks nested (dicts within: {listed}); give the one that trained_state()"
            f" gave: state[{shown(nested[0], 40)}]"
        )


def check_state(state: object, targets: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state, if it fills the targets one to one: names, shapes, kinds of numbers, and no value that is not finite.

    Args:
        state: what somebody gives as a state.
        targets: by stored name, the tensors that are to be write_state.

    Raises:
        BundleError: it does not; one line that names the first tensor.
    """
    what, remedy = "load_trained_state", "give what trained_state() of the same model gave"
    if not isinstance(state, Mapping):
        raise BundleError(f"{what}: the state is a {type(state).__name__}; {remedy}, a dict of tensors by name")
    lacking = [name for name in targets if name not in state]
    if lacking:
        if 2 * len(lacking) > len(targets):
            remedy = _other_names(state, targets) or remedy
        raise BundleError(f"{what}: the state lacks {lacking[0]} ({len(lacking)} of {len(targets)} tensors); {remedy}")
    unused = [name for name in state if name not in targets]
    if unused:
        near = suggest(str(unused[0]), targets, limit=1)
        raise BundleError(f"{what}: nothing is trained by the name {shown(unused[0], 120)}{near}; {remedy}")
    for name, target in targets.items():
        value = state[name]
        if not isinstance(value, Tensor):
            raise BundleError(f"{what}: {name} is a {type(value).__name__}; {remedy}")
        if value.shape != target.shape:
            raise BundleError(f"{what}: {name} is {tuple(value.shape)}, the model's {tuple(target.shape)}; {remedy}")
        if value.is_floating_point() != target.is_floating_point():
            raise BundleError(f"{what}: {name} holds {value.dtype}, the model's {target.dtype}; {remedy}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BundleError(f"{what}: {name} holds values that are not finite; give a state from before they came")
    return state


def _other_names(state: Mapping[str, object], targets: Mapping[str, Tensor]) -> str:
    """What to do about a state that has (nearly) none of the names: one that it has, and what is around ours."""
    if isinstance(state.get("state_dict"), Mapping):
        return 'it is a whole checkpoint: give its ["state_dict"]'
    names = [name for name in state if isinstance(name, str)]
    for name in names:
        of = next((target for target in targets if name.endswith(f".{target}")), None)
        if of is not None:
            before = shown(name.removesuffix(of))
            return (
                f"its names begin with {before}: give {{n.removeprefix({before}): x for n, x in state.items() if"
                f" n.startswith({before})}}"
            )
    if not names:
        return "it is empty"
    return (
        f"it has {shown(names[0], 60)}; trained_state() has names of its own: what state_dict() gave is for"
        " load_state_dict of the same module"
    )


@torch.no_grad()
def write_state(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy the values of a state that :func:`check_state` has passed, to the targets' devices and dtypes."""
    for name, target in targets.items():
        target.copy_(state[name])
