"""Descriptions that were built once, within their bounds, for a trunk: whoever loads many bundles remembers them."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import final

from garnish.bundles.bundle_json import BundleFacts
from garnish.bundles.specs import Specs
from garnish.bundles.tensors import Kinds

#: Most that are remembered; strangers may send any number.
_MOST = 256


@final
class SoundDescriptions:
    """What was built of a description and fitted the tensors of its file needs no bound of memory the next time.

    What a build allocates hangs on the trunk, the description and nothing else, so one of these goes with one trunk.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._specs: dict[str, Specs] = {}

    def key(self, facts: BundleFacts, kinds: Kinds) -> str:
        """Equal for bundles that differ in their numbers, and in what is told of these, alone."""
        told = [facts[part] for part in ("format", "dtype", "tuned_as", "backbone", "owners", "tasks", "preprocessing")]
        text = json.dumps([told, facts.get("decoders"), facts["sizes"]], sort_keys=True)
        held = repr(sorted((name, str(dtype), shape) for name, (dtype, shape) in kinds.items()))
        return hashlib.sha256(f"{text}\n{held}".encode()).hexdigest()

    def get(self, key: str) -> Specs | None:
        """What such a description specifies; None for one that was never built."""
        with self._lock:
            return self._specs.get(key)

    def add(self, key: str, specs: Specs) -> None:
        """Remember one, and forget the oldest of too many."""
        with self._lock:
            self._specs[key] = specs
            while len(self._specs) > _MOST:
                del self._specs[next(iter(self._specs))]
