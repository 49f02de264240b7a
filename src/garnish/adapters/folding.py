"""Folding what an owner shares into the trunk, where its tasks own parts that stay adapters.

What remains is smaller and the same to rounding: MTLoRA's shared updates outside the last blocks cost nothing then.
"""

from __future__ import annotations

import copy

from garnish.adapters.adapted import adapted_sites, fold, unwrap
from garnish.backbones.backbone import Backbone
from garnish.errors import SiteError


def fold_shared(backbone: Backbone, owner: int = 0) -> Backbone:
    """A copy with an owner's shared updates folded into the frozen weights wherever none of its tasks owns a part.

    Where a task does, its stream starts from the frozen layer's own output, so the shared update stays an adapter
    there, beside the task's. Values that the owner tunes become the frozen ones. Other owners are dropped, for they
    were trained on another trunk. The original stays as it is.

    Args:
        backbone: a trunk on which tasks of ``owner`` own streams (MTLoRA).
        owner: its number, not that of a task's part.

    Raises:
        SiteError: no task of the owner owns a stream, or a shared adapter is no plain layer (the first is named).
    """
    parts = [part for part, parent in backbone.parents.items() if parent == owner]
    if not parts:
        raise SiteError(f"{backbone.name}: no task owns a part of owner {owner}; merge it in full")
    if not backbone.streamed.issuperset(parts) or owner in backbone.prompts or backbone.shared(owner) is not None:
        raise SiteError(
            f"{backbone.name}: the tasks of owner {owner} run apart, so nothing shared can be folded; "
            "keep the bundle unmerged"
        )
    folded = copy.deepcopy(backbone)
    folded.tuned.settle(owner)
    kept = {s.name for s, w in adapted_sites(folded) if any(w.owned.of(part) is not None for part in parts)}
    for site, wrapper in list(adapted_sites(folded)):
        if wrapper.owned.of(owner) is not None and site.name not in kept:
            fold(wrapper, owner, site.name)
        wrapper.owned.keep((owner, *parts) if site.name in kept else ())
        if not wrapper.owned.methods:
            unwrap(folded, wrapper)
    units = [site.unit for site, wrapper in adapted_sites(folded) if wrapper.owned.of(owner) is not None]
    folded.fork_units = {owner: min(units)} if units else {}
    folded.parents, folded.streamed, folded.prompts = dict.fromkeys(parts, owner), set(parts), {}
    folded.take_back()
    return folded
