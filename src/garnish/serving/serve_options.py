"""Options that ``garnish serve`` and :mod:`garnish.serving.ray` share: their bounds, and what is made of them."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.checking.word_types import positive_int, some_names
from garnish.errors import OptionError, one_line, shown

if TYPE_CHECKING:
    from garnish.serving.settings import ServerSettings
    from garnish.serving.starting import Serving

#: A token must not be guessed.
_SHORTEST_TOKEN = 16
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")


def number_within(least: float, most: float) -> Callable[[str], float]:
    """Parse a number of these bounds, for ``type=``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{shown(text, 40)} is not a number from {least:g} to {most:g}")
        return value

    return parse


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


def add_serve_options(made: argparse.ArgumentParser) -> None:
    """Give a parser every option of a server but its bundles, their folder and where it listens."""
    add = made.add_argument
    add("--allow-host", type=_host_names, default=[], metavar="NAME,…", help="further names that requests call it by")
    add("--token-file", metavar="FILE", help="the token for PUT and DELETE; without, or GARNISH_TOKEN, none are taken")
    add("--uploads", metavar="DIR", help="keep uploaded bundles there (default: for as long as the server runs)")
    add("--memory", type=number_within(0, 1e6), default=2.0, metavar="GB", help="of bundles in memory (default: 2)")
    add("--batch", type=positive_int, metavar="N", help="most pictures of a pass (default: by the device)")
    add("--queue", type=positive_int, default=64, metavar="N", help="requests that may wait, then 503 (default: 64)")
    add("--deadline", type=number_within(0.001, 86400), default=60.0, metavar="SECONDS", help="then 503 (default: 60)")
    add("--megapixels", type=number_within(0.001, 1e4), default=100.0, metavar="N", help="of a picture (default: 100)")
    add(
        "--max-upload",
        type=number_within(0.001, 1e5),
        default=64.0,
        metavar="MB",
        help="of a request's body (default: 64)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    add("--weights", metavar="FILE", help="the backbone's weights, if they have moved")
    add("--threads", type=positive_int, metavar="N", help="of a pass (default: one a core)")
    add("--runtime", choices=("torch", "onnx"), default="torch", help="onnx: BUNDLE is a folder of garnish export")
    add("--log", choices=("json", "text"), default="json", help="lines on standard error (default: json)")


def server_settings(
    given: argparse.Namespace, token: str | None, names: frozenset[str] = frozenset(), *, any_address: bool = False
) -> ServerSettings:
    """Bounds and rights, of what :func:`add_serve_options` read.

    Args:
        given: the options.
        token: of :func:`read_token`.
        names: that ``Host`` may say beside those of --allow-host and of this machine's loopback.
        any_address: ``Host`` may be any numeric address.
    """
    from garnish.serving.settings import ServerSettings

    return ServerSettings(
        token=token,
        hosts=names | set(given.allow_host),
        any_address=any_address,
        deadline=given.deadline,
        body_bytes=int(given.max_upload * 1e6),
        held_bytes=max(2**30, int(4e6 * given.max_upload)),
        working=given.queue + 16,
    )


def serving_of(
    given: argparse.Namespace, bundles: Mapping[str, Path], uploads: Path | None, *, changing: bool
) -> Serving:
    """What is to be served, of what :func:`add_serve_options` read and ``root``, the folder of bundles.

    Args:
        given: the options.
        bundles: name → folder.
        uploads: a folder where uploads stay.
        changing: whether bundles may come and go.
    """
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


def read_token(file: str | None) -> str | None:
    """The token of a file, or of GARNISH_TOKEN; None: there is none.

    Raises:
        OptionError: the file cannot be read, or what it holds can be guessed.
    """
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
