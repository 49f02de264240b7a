"""The backbone that a bundle belongs to: building it from the description, or checking a given one against it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from garnish.backbones.backbone import Backbone
from garnish.backbones.build import backbone as build_backbone
from garnish.backbones.given_weights import GIVEN
from garnish.bundles.bundle_json import BackboneFacts, check_is_architecture
from garnish.checking.plain_data import Json
from garnish.errors import BundleError, OptionError, WeightsError, one_line

#: What to do about a bundle whose backbone was never read from a file.
_RANDOM = (
    "pass backbone=, that very trunk or one made of the same seed (torch.manual_seed before garnish.backbone), or train"
    " on weights in a file"
)
#: Likewise of one that was made of a model.
_GIVEN = (
    "pass backbone=, gn.backbone of that model, or weights= (--weights), a file of it: safetensors.torch.save_file("
    "{n: t.contiguous() for n, t in model.state_dict().items()}, 'trunk.safetensors')"
)


def rebuild(where: str, wanted: BackboneFacts, weights: str | os.PathLike[str] | None) -> Backbone:
    """Build the bare backbone that a description names.

    Without ``weights`` the path or Hub id in the description, which may be a stranger's, says what is read: a plain
    file name in the bundle's folder; else that path, as from the working directory; else that path below the bundle's
    folder, which it does not leave; else, if it is ``owner/name``, that repository of the Hub. Whatever it is, it is
    read as weights alone, never run, and refused unless it has the tensors of the architecture and the described
    fingerprint.

    Raises:
        BundleError: the backbone cannot be built.
    """
    source = str(weights) if weights is not None else wanted["weights_source"]
    if source == "random":
        raise BundleError(f"{where}: its backbone {wanted['name']} has random weights, which are in no file; {_RANDOM}")
    check_is_architecture(where, wanted["name"])
    if source == GIVEN:
        raise BundleError(f"{where}: its backbone {wanted['name']} was a model in memory; {_GIVEN}")
    tried = source
    try:
        if weights is None and source != "bundled":
            beside = _beside(where, source)
            alone = Path(source).name == source and beside is not None and beside.is_file()  # written with its weights
            if alone or not Path(source).expanduser().exists():
                tried = f"{source}, below the working directory or beside the bundle"
                source = str(beside) if beside is not None and beside.exists() else source
        # weights bundled with the package need no path
        kept = None if source == "bundled" else source
        return build_backbone(wanted["name"], kept, options=wanted["options"], taps=wanted.get("taps", "stage"))
    except (WeightsError, OptionError, OSError, RuntimeError) as error:  # a name too long, no such user's home
        remedy = "give" if weights is not None else "pass weights= (--weights),"
        remedy += " the file it was trained on"
        raise BundleError(
            f"{where}: its backbone {wanted['name']} cannot be built from {one_line(tried, 130)} "
            f"({one_line(error, 200)}); {remedy}"
        ) from error


def _beside(where: str, source: str) -> Path | None:
    """A relative path below a bundle's folder; None for one that would lead out of it."""
    given = Path(source)
    return None if given.is_absolute() or ".." in given.parts else Path(where).expanduser() / given


def check_backbone(where: str, wanted: BackboneFacts, found: Backbone, source: str) -> None:
    """Raise unless ``found`` is bare and the backbone that a description names."""
    if found.is_adapted:
        raise OptionError(
            f"load: the backbone {found.name} is adapted already; build a fresh one with garnish.backbone"
        )
    check_same(where, wanted, found, source)


def check_same(
    where: str,
    wanted: BackboneFacts,
    found: Backbone,
    source: str,
    *,
    anew: bool = True,
    known: str | None = None,
    remedy: str | None = None,
) -> None:
    """As :func:`check_backbone`, but the trunk may be adapted.

    Args:
        where: of the description, for messages.
        wanted: what it says.
        found: the trunk.
        source: of its weights, for messages.
        anew: compute its fingerprint again, where it is not known.
        known: its fingerprint, of whoever lets nobody else write into it.
        remedy: what to do, where the trunk is not the caller's to choose; None: build or pass another one.
    """
    options = json.loads(json.dumps(found.options))
    if found.name.split(".", 1)[0] != wanted["name"].split(".", 1)[0] or options != wanted["options"]:
        raise BundleError(
            f"{where}: belongs to backbone {_named(wanted['name'], wanted['options'])}, not to"
            f" {_named(found.name, options)}; {remedy or 'build that one, or leave backbone= out and pass weights='}"
        )
    if found.taps_at != (taps := wanted.get("taps", "stage")):
        raise BundleError(
            f"{where}: its heads read maps at taps={taps}, not {found.taps_at};"
            f" {remedy or f'build it with taps={taps!r}'}"
        )
    fingerprint = found.fingerprint(anew=anew) if known is None else known
    if fingerprint != wanted["fingerprint"]:
        of = one_line(wanted["weights_source"], 200)
        remedy = remedy or (
            _RANDOM
            if of == "random"
            else _GIVEN
            if of == GIVEN
            else "pass weights= (--weights), the file it was trained on"
        )
        raise BundleError(
            f"{where}: belongs to {wanted['name']} with fingerprint {wanted['fingerprint'][:12]} (weights: {of}), but "
            f"that of {one_line(source, 200)} is {fingerprint[:12]}; {remedy}"
        )


def _named(name: str, options: Mapping[str, Json]) -> str:
    """A backbone with its options, where it has any."""
    return f"{name} {options}" if options else name
