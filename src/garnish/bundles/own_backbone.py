"""The backbone that a bundle belongs to: building it from the description, or checking a given one against it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from garnish.backbones.backbone import Backbone
from garnish.backbones.build import backbone as build_backbone
from garnish.bundles.bundle_json import BackboneFacts
from garnish.errors import BundleError, OptionError, WeightsError, one_line


def rebuild(where: str, wanted: BackboneFacts, weights: str | os.PathLike[str] | None) -> Backbone:
    """Build the bare backbone that a description names; raises :class:`BundleError` if that is not possible."""
    source = str(weights) if weights is not None else wanted["weights_source"]
    if source == "random":
        raise BundleError(
            f"{where}: its backbone {wanted['name']} has random weights, which cannot be rebuilt; pass backbone="
        )
    tried, beside = source, Path(where).expanduser() / source
    if weights is None and source != "bundled":
        alone = Path(source).name == source and beside.is_file()  # the bundle was written with its weights
        if alone or not Path(source).expanduser().exists():
            tried = f"{source}, below the working directory or {where}"
            source = str(beside) if beside.exists() else source
    try:
        # weights bundled with the package need no path
        kept = None if source == "bundled" else source
        return build_backbone(wanted["name"], kept, options=wanted["options"], taps=wanted.get("taps", "stage"))
    except (WeightsError, OptionError) as error:
        raise BundleError(
            f"{where}: its backbone {wanted['name']} cannot be built from {tried} ({one_line(error, 160)}); "
            "pass weights= (--weights), the file it was trained on"
        ) from error


def check_backbone(where: str, wanted: BackboneFacts, found: Backbone, source: str) -> None:
    """Raise unless ``found`` is bare and the backbone that a description names."""
    if found.is_adapted:
        raise OptionError(
            f"load: the backbone {found.name} is adapted already; build a fresh one with garnish.backbone"
        )
    check_same(where, wanted, found, source)


def check_same(where: str, wanted: BackboneFacts, found: Backbone, source: str, *, anew: bool = True) -> None:
    """As :func:`check_backbone`, but the trunk may be adapted; ``anew``: compute its fingerprint again."""
    options = json.loads(json.dumps(found.options))
    if found.name.split(".", 1)[0] != wanted["name"].split(".", 1)[0] or options != wanted["options"]:
        raise BundleError(
            f"{where}: belongs to backbone {wanted['name']} {wanted['options']}, not to {found.name} {options}; "
            f"build that one, or leave backbone= out and pass weights="
        )
    if found.taps_at != (taps := wanted.get("taps", "stage")):
        raise BundleError(
            f"{where}: its heads read maps at taps={taps}, not {found.taps_at}; build it with taps={taps!r}"
        )
    fingerprint = found.fingerprint(anew=anew)
    if fingerprint != wanted["fingerprint"]:
        raise BundleError(
            f"{where}: belongs to {wanted['name']} with fingerprint {wanted['fingerprint'][:12]} (weights: "
            f"{wanted['weights_source']}), but that of {source} is {fingerprint[:12]}; "
            "pass weights= (--weights), the file it was trained on"
        )
