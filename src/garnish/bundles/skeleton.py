"""A bundle's model without the tensors of bundle and backbone: what its description says, built and counted."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from garnish.backbones.build import backbone
from garnish.bundles.bundle_json import BundleFacts, bundle_folder, read_bundle_json
from garnish.bundles.described import build_described
from garnish.bundles.tensors import kinds_of, read_tensors, weights_of
from garnish.model.model import Model


def skeleton(paths: Sequence[str], described: Sequence[BundleFacts]) -> Model:
    """The model of some bundles of one backbone, with random weights.

    Args:
        paths: their folders.
        described: what each says of itself.

    Raises:
        BundleError: names and shapes that are not of the model described.
    """
    first = described[0]["backbone"]
    model = Model(backbone(first["name"], None, options=first["options"], taps=first.get("taps", "stage")))
    for path, facts in zip(paths, described, strict=True):
        model.serve(build_described(model, facts, kinds_of(bundle_folder(path), facts), path)[0])
    return model


def whole_bundle(path: str) -> tuple[BundleFacts, bytes]:
    """The description and the weights' bytes of a bundle that is complete; the backbone's weights are not needed.

    Raises:
        BundleError: as :func:`garnish.bundles.bundle.load`, but for the fingerprint of the backbone.
    """
    facts = read_bundle_json(path)
    folder = bundle_folder(path)
    kinds_of(folder, facts)  # before anything is built
    with torch.random.fork_rng(devices=[]):
        skeleton([path], [facts])
    weights = weights_of(folder, facts)
    read_tensors(weights, str(folder))
    return facts, weights
