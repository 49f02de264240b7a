"""Arguments of :func:`garnish.serving.ray.app`: words of ``serve run`` or of a config file, checked as a command's."""

from __future__ import annotations

import argparse
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, final

from garnish.bundles.bundle_json import DESCRIPTION
from garnish.bundles.given_bundle import given_bundle
from garnish.checking.word_types import positive_int, some_names
from garnish.errors import BundleError, OptionError, one_line, shown, suggest
from garnish.files.regular import read_regular
from garnish.files.strict_json import MOST_BYTES
from garnish.hub.address import cached_address
from garnish.serving.named_folders import check_one_trunk, named_folders
from garnish.serving.serve_options import add_serve_options, number_within, read_token, server_settings, serving_of
from garnish.serving.settings import ServerSettings
from garnish.serving.starting import Serving

_WHERE = "garnish.serving.ray:app"
#: Arguments that mean something to ``garnish serve`` but not here, and where that is said instead.
_ELSEWHERE = {
    "host": "Serve's http_options say where it listens; names that requests call it by: allow-host",
    "port": "Serve's http_options say where it listens",
}


@final
@dataclass(frozen=True, kw_only=True)
class RayPlan:
    """What an application under Ray Serve is made of.

    Attributes:
        serving: what each replica serves; of bundles from the Hub the folders of this machine.
        hub: name → address with the commit, of bundles that each machine fetches itself.
        marks: name → SHA-256 of the bundle's description, which each machine must find.
        settings: bounds and rights.
        replicas: processes with a trunk.
        spread: requests at a replica beyond which the next one takes some.
        doors: processes that take requests and send them to replicas.
        cpus: that Ray keeps for a replica.
        gpus: likewise.
        as_json: form of log lines.
        start: a name of this start.
    """

    serving: Serving
    hub: Mapping[str, str]
    marks: Mapping[str, str]
    settings: ServerSettings
    replicas: int
    spread: int
    doors: int
    cpus: float
    gpus: float
    as_json: bool
    start: str

    @property
    def changing(self) -> bool:
        """Whether bundles may come and go."""
        return self.serving.changing

    def here(self) -> Serving:
        """What is served, with the folders of the machine that this runs on.

        Raises:
            BundleError: a bundle lies not there, or is another one. HubError: it cannot be fetched.
        """
        folders = {name: self._folder(name, folder) for name, folder in self.serving.bundles.items()}
        return replace(self.serving, bundles=folders)

    def _folder(self, name: str, folder: Path) -> Path:
        if name in self.hub:
            folder = Path(given_bundle(self.hub[name]))
        if name in self.marks and bundle_mark(folder) != self.marks[name]:
            raise BundleError(f"bundle {name!r}: {folder} on this machine is another bundle; let all have the same")
        return folder


@final
class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{_WHERE}: {one_line(message.replace('argument --', ''))}")


def _parser() -> _Arguments:
    made = _Arguments(prog=_WHERE, usage="", add_help=False, allow_abbrev=False)
    made.add_argument("--bundles", type=some_names, default=[])
    made.add_argument("--root")
    add_serve_options(made)
    for name, default in (("replicas", 1), ("spread", 8), ("doors", 1)):
        made.add_argument(f"--{name}", type=positive_int, default=default)
    made.add_argument("--cpus", type=number_within(0, 1e4), default=1.0)
    made.add_argument("--gpus", type=number_within(0, 1e3), default=0.0)
    return made


def read_args(args: Mapping[str, object]) -> RayPlan:
    """What the arguments ask for; every bundle that they name is looked at.

    Args:
        args: name → word, as ``serve run garnish.serving.ray:app name=word`` gives them; numbers of a config file too.

    Raises:
        OptionError: an unknown name, or a value out of bounds. BundleError, HubError: a bundle that cannot be served.
    """
    parser = _parser()
    known = [option.removeprefix("--") for action in parser._actions for option in action.option_strings]
    words = []
    for name, value in args.items():
        if name in _ELSEWHERE:
            raise OptionError(f"{_WHERE}: {name} is not taken here; {_ELSEWHERE[name]}")
        if name not in known:
            raise OptionError(f"{_WHERE}: unknown argument {shown(name)}{suggest(str(name)[:100], known, limit=30)}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise OptionError(f"{_WHERE}: {name}: expected a word or a number, found {shown(value)}; lists are a,b")
        words.append(f"--{name}={value}")
    given = parser.parse_args(words)
    folders = named_folders(given.bundles)
    if not folders and given.root is None:
        raise OptionError(
            f"{_WHERE}: there is no bundle, by which the trunk would be known; give bundles=DIR,… or root"
        )
    if given.runtime == "torch":
        check_one_trunk(folders)
    token = read_token(given.token_file)
    for name in ("root", "uploads", "weights"):
        if getattr(given, name) is not None:
            setattr(given, name, str(Path(getattr(given, name)).absolute()))
    uploads = None if given.uploads is None else Path(given.uploads)
    absolute = {name: folder.absolute() for name, folder in folders.items()}
    return RayPlan(
        serving=serving_of(given, absolute, uploads, changing=token is not None or uploads is not None),
        hub={name: str(found) for name, folder in folders.items() if (found := cached_address(folder)) is not None},
        marks={name: bundle_mark(folder) for name, folder in absolute.items() if given.runtime == "torch"},
        settings=server_settings(given, token),
        replicas=given.replicas,
        spread=given.spread,
        doors=given.doors,
        cpus=given.cpus,
        gpus=given.gpus,
        as_json=given.log == "json",
        start=uuid.uuid4().hex,
    )


def bundle_mark(folder: Path) -> str:
    """SHA-256 of a bundle's description, which has that of its weights.

    Raises:
        BundleError: there is none.
    """
    try:
        return hashlib.sha256(read_regular(folder / DESCRIPTION, MOST_BYTES)).hexdigest()
    except OSError as error:
        reason = error.strerror or one_line(error, 80)
        raise BundleError(f"{folder / DESCRIPTION}: cannot be read ({reason}); let the bundle lie there") from error
