"""The files of the page, by name: ours, the colours of painted maps, and onnxruntime-web's."""

from __future__ import annotations

import json
import os
from importlib import resources

from garnish.drawing.colours import BACKGROUND, NOTHING, distinct_colours, viridis
from garnish.drawing.painting import SHORTEST_VECTOR
from garnish.page.onnxruntime_web import FILES, onnxruntime_web_files

_OWN = (
    "index.html",
    "page.css",
    "page.js",
    "view.js",
    "picture.js",
    "worker.js",
    "maps.js",
    "decodings.js",
    "graph.js",
    "graph_file.js",
    "adapter_file.js",
)
#: Shared with the report of a comparison.
_THEME = ("theme.css", "theme.js")
_COLOURS = "colours.json"
#: Names of all files of the page.
PAGE_FILES = (*_OWN, *_THEME, _COLOURS, *FILES)


def export_page_files(package: str | os.PathLike[str] | None = None) -> dict[str, bytes]:
    """The files of the page by name, to be served beside the files of an export.

    Args:
        package: onnxruntime-web's package; None: npm fetches it.

    Raises:
        MissingExtraError, DataError: as :func:`garnish.page.onnxruntime_web.onnxruntime_web_files`.
    """
    return {**own_files(), **onnxruntime_web_files(package)}


def own_files() -> dict[str, bytes]:
    """The files of the page by name, without onnxruntime-web's."""
    package = resources.files("garnish")
    found = {name: package.joinpath("page", name).read_bytes() for name in _OWN}
    found |= {name: package.joinpath("assets", name).read_bytes() for name in _THEME}
    return {**found, _COLOURS: json.dumps(_colours()).encode()}


def _colours() -> dict[str, object]:
    """What :mod:`garnish.drawing` paints with, for ``decodings.js``."""
    return {
        "nothing": NOTHING,
        "background": BACKGROUND,
        "classes": distinct_colours(),
        "scale": viridis().tolist(),
        "shortest_vector": SHORTEST_VECTOR,
    }
