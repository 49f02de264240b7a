"""The files of the server's page: its own modules, and those that it shares with the page of an export."""

from __future__ import annotations

from importlib import resources

from garnish.page.files import own_files

_OWN = (
    "index.html",
    "looking.css",
    "serving.js",
    "choosing.js",
    "looking.js",
    "pane.js",
    "camera.js",
    "layers.js",
    "readings.js",
    "differences.js",
    "npz.js",
    "server.js",
    "latency.js",
    "trying.js",
)
_SHARED = ("page.css", "theme.css", "theme.js", "view.js", "decodings.js", "picture.js", "colours.json")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
}


def page_files() -> dict[str, tuple[bytes, str]]:
    """Name → (bytes, media type); all lie beside each other, ``index.html`` is the page."""
    here, shared = resources.files("garnish").joinpath("serving", "page"), own_files()
    found = {name: here.joinpath(name).read_bytes() for name in _OWN}
    found |= {name: shared[name] for name in _SHARED}
    return {name: (data, _TYPES[name[name.rindex(".") :]]) for name, data in found.items()}
