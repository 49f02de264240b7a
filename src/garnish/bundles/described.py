"""Building what a bundle's description asks for, which may be a stranger's: bounded, and compared with what it says."""

from __future__ import annotations

import math
from contextlib import nullcontext

from torch import Tensor

from garnish.backbones.backbone import Backbone
from garnish.bundles.agreement import check_described, check_sizes
from garnish.bundles.bundle_json import WEIGHTS, BundleFacts
from garnish.bundles.renaming import Renaming
from garnish.bundles.sound_descriptions import SoundDescriptions
from garnish.bundles.specs import Specs
from garnish.bundles.tensors import Kinds, check_fit
from garnish.checking.allocations import AllocationLimit, charge
from garnish.errors import BundleError, OptionError, SiteError, one_line
from garnish.model.model import Model
from garnish.model.served import Addition

#: Bytes that a description may ask for beside what the sizes of its tensors and its trunk explain.
_ROOM = 64 * 2**20
_BEYOND = "its description asks for far larger or far more tensors than its weights hold; it is damaged"


def build_described(
    model: Model,
    facts: BundleFacts,
    kinds: Kinds,
    where: str,
    names: Renaming | None = None,
    sound: SoundDescriptions | None = None,
) -> tuple[Addition, dict[str, Tensor]]:
    """Build the owners, tasks and heads of a bundle's description for a model, without adding them to it.

    Args:
        model: a model on the bundle's backbone.
        facts: the description.
        kinds: what ``weights.safetensors`` holds by its header. A model that asks for far more memory than these
            tensors and the backbone have is not built.
        where: the bundle's folder, for messages.
        names: that the tasks get; None: those of the description.
        sound: of this trunk; what is remembered there is not bounded and compared again, only built.

    Returns:
        What was built, and its tensors by the names in the bundle's files.

    Raises:
        BundleError: an unknown name or option, one that does not fit the backbone or the model's other tasks, tensors
            that differ from ``kinds``, or a description that differs from what it describes.
    """
    names = Renaming(None, facts["tasks"], where) if names is None else names
    key = "" if sound is None else sound.key(facts, kinds)
    known = None if sound is None else sound.get(key)
    most = _ROOM + 4 * sum(charge(math.prod(shape)) for _, shape in kinds.values())
    try:
        specs = Specs.read(facts) if known is None else known
        error = BundleError(f"{where}: cannot be built ({_BEYOND})")
        limit = AllocationLimit(most, error, lambda: _trunk_bytes(model.backbone))
        with limit if known is None else nullcontext():
            new = specs.renamed(names.new)
            made = model.build(new.owners, new.tasks, new.heads, new.groups)
    except (OptionError, SiteError) as error:
        raise BundleError(f"{where}: {error}") from error
    except (RuntimeError, MemoryError) as error:  # sizes that no machine can allocate
        raise BundleError(f"{where}: cannot be built ({one_line(error, 120)}); its description is damaged") from error
    if known is None:
        check_described(facts, model.backbone, {names.old(name): task for name, task in made.tasks.items()}, where)
    tensors = names.tensors(made)
    check_fit(tensors, kinds, facts["dtype"], f"{where}/{WEIGHTS}")
    check_sizes(facts, tensors, where)
    if sound is not None:
        sound.add(key, specs)
    return made, tensors


def _trunk_bytes(trunk: Backbone) -> int:
    """What work on a trunk's own tensors may take beside: some methods begin with their singular values."""
    return 4 * sum(charge(tensor.numel()) for tensor in trunk.body.parameters())
