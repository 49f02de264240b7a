"""``garnish serve``: answer requests for maps over HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.commands.parser import Parser, positive_int, some_names
from garnish.errors import OptionError, one_line, plural, shown
from garnish.output import say

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
#: A token must not be guessed.
_SHORTEST_TOKEN = 16
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{shown(text, 40)} is not a number from {least:g} to {most:g}")
        return value

    return parse


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{shown(text, 40)} is not a port from 0 (any free one) to 65,535")
    return int(text)


def _host_names(text: str) -> list[str]:
    """Names as ``Host`` says them, without a port; ``type=`` of --allow-host."""
    found = some_names(text)
    for name in found:
        if not _HOST_NAME.fullmatch(name) and not _is_address(name):
            raise argparse.ArgumentTypeError(f"{shown(name, 80)} is no name of a host; give it without scheme and port")
    return [name.lower().removesuffix(".") for name in found]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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
    add("--allow-host", type=_host_names, default=[], metavar="NAME,…", help="further names that requests call it by")
    add("--token-file", metavar="FILE", help="the token for PUT and DELETE; without, or GARNISH_TOKEN, none are taken")
    add("--uploads", metavar="DIR", help="keep uploaded bundles there (default: for as long as the server runs)")
    add("--memory", type=_number(0, 1e6), default=2.0, metavar="GB", help="of bundles in memory (default: 2)")
    add("--batch", type=positive_int, metavar="N", help="most pictures of a pass (default: by the device)")
    add("--queue", type=positive_int, default=64, metavar="N", help="requests that may wait, then 503 (default: 64)")
    add("--deadline", type=_number(0.001, 86400), default=60.0, metavar="SECONDS", help="then 503 (default: 60)")
    add("--megapixels", type=_number(0.001, 1e4), default=100.0, metavar="N", help="of a picture (default: 100)")
    add("--max-upload", type=_number(0.001, 1e5), default=64.0, metavar="MB", help="of a request's body (default: 64)")
    add("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    add("--weights", metavar="FILE", help="the backbone's weights, if they have moved")
    add("--threads", type=positive_int, metavar="N", help="of a pass (default: one a core)")
    add("--runtime", choices=("torch", "onnx"), default="torch", help="onnx: BUNDLE is a folder of garnish export")
    add("--log", choices=("json", "text"), default="json", help="lines on standard error (default: json)")
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
    from garnish.serving.running import address_of, bound_socket, run_app
    from garnish.serving.starting import start_serving

    token = _token(given.token_file)
    settings = _settings(given, token)
    with ExitStack() as end:
        listening = end.enter_context(bound_socket(given.host, given.port))
        private = token is not None and given.uploads is None
        uploads = (
            end.enter_context(tempfile.TemporaryDirectory(prefix="garnish-uploads-")) if private else given.uploads
        )
        asked = _serving(given, bundles, None if uploads is None else Path(uploads), token is not None)
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


def _settings(given: argparse.Namespace, token: str | None) -> ServerSettings:
    from garnish.serving.running import host_names
    from garnish.serving.settings import ServerSettings

    names, any_address = host_names(given.host)
    return ServerSettings(
        token=token,
        hosts=names | set(given.allow_host),
        any_address=any_address,
        deadline=given.deadline,
        body_bytes=int(given.max_upload * 1e6),
        held_bytes=max(2**30, int(4e6 * given.max_upload)),
        working=given.queue + 16,
    )


def _serving(given: argparse.Namespace, bundles: Mapping[str, Path], uploads: Path | None, changing: bool) -> Serving:
    from garnish.serving.starting import Serving

    return Serving(
        bundles=bundles,
        root=None if given.root is None else Path(given.root),
        uploads=uploads,
        runtime=given.runtime,
        changing=changing,
        memory=int(given.memory * 1e9),
        max_upload=int(given.max_upload * 1e6),
        batch=given.batch,
        queue=given.queue,
        megapixels=given.megapixels,
        device=given.device,
        weights=given.weights,
        threads=given.threads,
    )


def _token(file: str | None) -> str | None:
    """The token of a file, or of GARNISH_TOKEN; None: there is none."""
    from garnish.files.regular import read_regular

    if file is None:
        where, token = "GARNISH_TOKEN", os.environ.get("GARNISH_TOKEN")
        if not token:
            return None
    else:
        where = f"--token-file {file}"
        try:
            token = read_regular(Path(file), 4096).decode("utf-8", "replace").strip()
        except OSError as error:
            reason = error.strerror or one_line(error, 80)
            raise OptionError(f"serve: {where}: cannot be read ({reason}); give a file that holds the token") from error
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise OptionError(
            f"serve: {where}: a token has at least {_SHORTEST_TOKEN} letters, digits and signs, and no spaces; make one"
            " with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


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
