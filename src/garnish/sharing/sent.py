"""The files of a bundle that are sent to the Hub: its description, its weights, their digests, and nothing else."""

from __future__ import annotations

import copy
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.bundles.bundle import save
from garnish.bundles.bundle_json import DESCRIPTION, WEIGHTS, BundleFacts, bundle_folder, bundle_of_run
from garnish.bundles.licences_told import LICENCES, licences_entry, licences_told
from garnish.bundles.skeleton import whole_bundle
from garnish.bundles.written_files import Metrics
from garnish.checking.plain_data import Json
from garnish.engine.stated_licences import StatedLicences
from garnish.errors import BundleError, OptionError
from garnish.files.checksums import SUMS, with_sums
from garnish.files.regular import read_regular
from garnish.files.strict_json import MOST_BYTES, parse_json
from garnish.hub.address import is_hub
from garnish.model.model import Model

CARD = "README.md"
#: All names that a push may write.
SENT = (DESCRIPTION, WEIGHTS, SUMS, CARD)


@final
@dataclass(frozen=True)
class SentBundle:
    """A bundle as it is sent.

    Attributes:
        facts: its description.
        files: name → bytes, without the card.
    """

    facts: BundleFacts
    files: Mapping[str, bytes]

    @property
    def has_metrics(self) -> bool:
        """Whether anything was measured of any task."""
        return any(self.facts["metrics"].values())

    def measured_as(self, there: BundleFacts) -> SentBundle:
        """The same with the metrics, and what is said of the training, of a bundle with just these weights."""
        facts = copy.deepcopy(self.facts)
        facts["metrics"] = there["metrics"]
        if "metrics_rounding" in there:
            facts["metrics_rounding"] = there["metrics_rounding"]
        return self._with({**facts, "extra": {**there.get("extra", {}), **facts.get("extra", {})}})

    def stating(self, licences: StatedLicences) -> SentBundle:
        """The same with licences in its description, where every copy of it has them."""
        if licences in (licences_told(self.facts), StatedLicences()):
            return self
        others = {key: told for key, told in self.facts.get("extra", {}).items() if key != LICENCES}
        return self._with({**self.facts, "extra": {**others, **licences_entry(licences)}})

    def _with(self, facts: BundleFacts) -> SentBundle:
        text = json.dumps(facts, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        data = f"{text}\n".encode()
        if len(data) > MOST_BYTES:
            raise BundleError(f"push: {len(data)} bytes of facts are over the limit of {MOST_BYTES}; shorten extra")
        return SentBundle(facts, with_sums({DESCRIPTION: data, WEIGHTS: self.files[WEIGHTS]}))


def sent_bundle(bundle: Model | str | os.PathLike[str], metrics: Metrics | None) -> SentBundle:
    """Read a bundle, or write a model as one, and check it as whoever loads it does.

    Raises:
        BundleError: no bundle, or a damaged one, or one that nobody else could load. OptionError: metrics of a folder.
    """
    if isinstance(bundle, Model):
        with tempfile.TemporaryDirectory(prefix="garnish-push-") as folder:
            return _read(Path(save(bundle, Path(folder) / "bundle", metrics=metrics)), "the model")
    if metrics is not None:
        raise OptionError("push: a bundle has its metrics; metrics= goes with a model")
    if is_hub(bundle):
        raise OptionError(f"push: {bundle} lies on the Hub already; name a folder, or garnish pull it first")
    path = bundle_of_run(bundle, "push: bundle")
    return _read(path, str(path))


def told_paths(facts: BundleFacts) -> tuple[str, ...]:
    """Paths in a description that tell of the machine it was written on: absolute ones, or of a home."""
    found: dict[str, None] = {}
    ahead: list[Json] = [dict(facts["backbone"]), facts.get("extra", {})]
    while ahead:
        value = ahead.pop()
        if isinstance(value, dict):
            ahead += value.values()
        elif isinstance(value, list):
            ahead += value
        elif isinstance(value, str) and (value.startswith(("/", "~", "\\\\")) or value[1:3] in (":\\", ":/")):
            found[value] = None
    return tuple(sorted(found))


def _read(path: Path, where: str) -> SentBundle:
    facts, weights = whole_bundle(str(path))
    if facts["backbone"]["weights_source"] == "random":
        raise BundleError(
            f"{where}: its backbone has random weights, which are in no file, so nobody could load it; train on weights"
            " in a file or on the Hub"
        )
    description = read_regular(bundle_folder(path) / DESCRIPTION, MOST_BYTES)
    if parse_json(description) != facts:
        raise BundleError(f"{where}: was written anew while it was read; push it again when nobody writes there")
    if odd := [task for task, values in facts["metrics"].items() if not all(map(_finite, values.values()))]:
        raise BundleError(f"{where}: metrics of {odd[0]} are not finite; save the bundle again")
    return SentBundle(facts, with_sums({DESCRIPTION: description, WEIGHTS: weights}))


def _finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)
