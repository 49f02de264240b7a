"""What a server tells of a bundle: ``GET /v1/bundles/{name}``."""

from __future__ import annotations

from garnish.checking.plain_data import Json
from garnish.decodings.decoding import Decoding
from garnish.registry import describe, plain
from garnish.serving.engine import Loaded


def served_facts(loaded: Loaded) -> dict[str, Json]:
    """The facts of a bundle by themselves, as JSON holds them."""
    return {
        "name": loaded.name,
        "tasks": {task: _task(by, loaded.kinds[task]) for task, by in loaded.decodings.items()},
        "bands": loaded.bands.facts(),
        "bytes": loaded.nbytes,
        "sha256": loaded.sha256,
        **loaded.told,
    }


def _task(decoding: Decoding, kind: str) -> dict[str, Json]:
    legend = decoding.legend()
    told: dict[str, Json] = {"task": kind, "decoding": plain(describe(decoding))}
    if legend:
        told |= {"classes": list(legend), "palette": [list(colour) for colour in legend.values()]}
    return told
