"""``garnish serve``: answer requests for maps over HTTP."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.commands.parser import Parser
from garnish.errors import plural, shown
from garnish.output import say
from garnish.serving.serve_options import add_serve_options, read_token, server_settings, serving_of

if TYPE_CHECKING:
    from garnish.serving.settings import ServerSettings
    from garnish.serving.starting import Serving, StartedServing

_EPILOG = """\
POST /v1/predict takes a picture and answers its maps, as JSON, multipart/mixed, npz, or one PNG or TIFF; / is a page,
/openapi.json says everything, docs/serving.md shows it. Requests for different bundles and tasks share passes. Bundles
must belong to one trunk. One bundle alone is folded into it.

With a token (--token-file, or GARNISH_TOKEN) bundles come and go by PUT and DELETE /v1/bundles/NAME. SIGTERM and
Ctrl-C end the server when what it accepted is answered, a second one at once. Needs the extra: pip install
'garnish[serve]'.

examples:
  garnish serve runs/camvid/best
  garnish serve street=runs/camvid/best cracks=runs/cracks/best --port 8000
  garnish serve hub:user/name indoor=hub:user/other@v1
  garnish serve --bundles bundles --memory 4 --token-file token --uploads uploads
  garnish serve exported --runtime onnx --threads 4
  curl -F image=@street.jpg -F bundle=street -F tasks=seg -H 'Accept: image/png' localhost:8000/v1/predict > seg.png
"""


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{shown(text, 40)} is not a port from 0 (any free one) to 65,535")
    return int(text)


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish serve",
        "garnish serve [NAME=]BUNDLE … [options]",
        "Answer requests for maps over HTTP, of many bundles on one trunk.",
        _EPILOG,
    )
    add = made.add_argument
    add(
        "bundles",
        metavar="BUNDLE",
        nargs="*",
        help="folder of a bundle, named as it, or of a run, of which the best is taken, or hub:user/name",
    )
    add("--bundles", dest="root", metavar="DIR", help="every folder in it is a bundle, read when it is asked for")
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)")
    add("--port", type=_port, default=8000, metavar="N", help="0: any free one (default: 8000)")
    add_serve_options(made)
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    from garnish.serving.named_folders import check_one_trunk, named_folders

    bundles = named_folders(given.bundles)
    if given.runtime == "torch":
        check_one_trunk(bundles)
    from garnish.serving.installed import require_server

    require_server()
    from garnish.serving.app import make_app
    from garnish.serving.json_logs import logging_lines
    from garnish.serving.rare_collections import collecting
    from garnish.serving.running import address_of, bound_socket, host_names, run_app
    from garnish.serving.starting import start_serving

    token = read_token(given.token_file)
    names, any_address = host_names(given.host)
    settings = server_settings(given, token, names, any_address=any_address)
    with ExitStack() as end:
        listening = end.enter_context(bound_socket(given.host, given.port))
        private = token is not None and given.uploads is None
        uploads = (
            end.enter_context(tempfile.TemporaryDirectory(prefix="garnish-uploads-")) if private else given.uploads
        )
        folder = None if uploads is None else Path(uploads)
        asked = serving_of(given, bundles, folder, changing=token is not None)
        started = start_serving(asked)
        end.callback(started.close)
        trunk, batcher = started.engine.trunk, started.batcher
        app = make_app(started.service, started.store, settings, trunk=trunk, queued=lambda: batcher.counts().queued)
        batcher.observers.append(app.state.parts.metrics)
        end.enter_context(logging_lines(as_json=given.log == "json"))
        lines = _told(given, started, settings, uploads, private=private)
        lines[1:1] = _told_origins(asked, started)

        def at_start() -> None:
            say(f"{address_of(listening)}: {lines[0]}", *lines[1:])
            sys.stdout.flush()  # who waits for the line may read it from a pipe

        end.enter_context(collecting())
        run_app(app, listening, at_start)
    return 0


def _told_origins(asked: Serving, started: StartedServing) -> list[str]:
    """Of each bundle from the Hub that was named at the start, its address with the commit that is served."""
    if asked.runtime != "torch":
        return []
    found = {name: started.store.about(name).get("from") for name in list(asked.bundles)[:100]}
    return [f"{name} is {address}" for name, address in found.items() if address is not None]


def _told(
    given: argparse.Namespace, started: StartedServing, settings: ServerSettings, uploads: str | None, *, private: bool
) -> list[str]:
    """What the server says at its start."""
    trunk, names = started.engine.trunk, started.store.names()
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    lines = [
        f"{trunk['name']} ({trunk['weights_source']}, {trunk['licence']}), {plural(len(names), 'bundle')}: {listed}"
    ]
    lines.append("a page at / (open the address in a browser), requests: POST /v1/predict, all of it: /openapi.json")
    if started.is_merged:
        lines.append("one bundle: its adapters are folded into the trunk")
    lines.append(
        f"bounds: {given.megapixels:g} megapixels, {given.max_upload:g} MB a request, {given.deadline:g} s,"
        f" {given.queue} in the queue, {started.batcher.batch} in a pass, {given.memory:g} GB of bundles in memory"
    )
    if settings.token is None:
        lines.append("bundles cannot be changed: there is no token")
    else:
        lines.append(f"uploads: {uploads}{', removed at the end (--uploads DIR keeps them)' if private else ''}")
    return lines
