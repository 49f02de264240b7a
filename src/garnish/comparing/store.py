"""The store of a comparison: files of runs and measurements under content keys, ``runs/KEY`` and ``measures/KEY.*``.

Files are written atomically with a SHA-256; damaged ones are made again. A process holds a lock on the key that it
works on, which ends with the process, so that no two processes do the same work.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar, final

from garnish.comparing.arms import ArmRun
from garnish.comparing.outcomes import Failed, Outcome, Trained, odd_training
from garnish.comparing.typed_json import as_json, from_json
from garnish.errors import OptionError, one_line
from garnish.files.atomic import write_file, writing
from garnish.files.checksums import KEY, is_sealed, sealed, with_place
from garnish.files.links import check_links
from garnish.files.locks import locked
from garnish.files.regular import read_regular
from garnish.files.strict_json import parse_json
from garnish.output import logger

T = TypeVar("T")
_log = logger(__name__)
#: Largest file that is read, bytes; a result with ten thousand evaluations has some megabytes.
_MOST_BYTES = 64 * 2**20
#: Number of characters of a key used in file names.
_KEY = 32
RESULT, FAILED, WHAT = "result.json", "failed.json", "what.json"


@final
class Store:
    """A folder with the results of runs under their keys.

    Args:
        folder: created at the first write.

    Raises:
        BundleError: it has links that lead out of it.
    """

    def __init__(self, folder: Path) -> None:
        check_links(folder)
        self.folder = folder

    # ---- runs -------------------------------------------------------------------------------------------------------

    def run(self, key: str) -> Path:
        """Folder of a run."""
        return self.folder / "runs" / key[:_KEY]

    def training(self, key: str) -> Path:
        """Folder that the training of a run writes."""
        return self.run(key) / "fit"

    def bundle(self, key: str) -> Path:
        """The bundle of a run's best step."""
        return self.training(key) / "best"

    def outcome(self, key: str, run: ArmRun) -> Outcome | None:
        """The outcome of a run; None while it is unfinished, or if what is there cannot be its outcome."""
        done = kept(Trained, self.run(key) / RESULT, lambda found: odd_training(found, run))
        return done if done is not None else kept(Failed, self.run(key) / FAILED)

    def begin(self, key: str, what: Mapping[str, object]) -> bool:
        """Prepare the folder of a run; returns whether there is a checkpoint to resume from.

        Files of a run that was killed before its first checkpoint are removed.
        """
        keep_json(self.run(key) / WHAT, what)
        folder = self.training(key)
        if (folder / "last" / "state.safetensors").is_file():
            return True
        self.clear(key)
        return False

    def clear(self, key: str) -> None:
        """Remove the folder that training wrote."""
        with _located(self.training(key)):
            shutil.rmtree(self.training(key), ignore_errors=False) if self.training(key).exists() else None

    def finish(self, key: str, outcome: Outcome) -> None:
        """Store the outcome of a run, then remove its checkpoint (optimizer state), which is no longer needed."""
        keep_json(self.run(key) / (RESULT if isinstance(outcome, Trained) else FAILED), outcome)
        self.tidy(key, outcome)

    def tidy(self, key: str, outcome: Outcome) -> None:
        """Remove the checkpoint of a finished run, or everything that a failed one wrote."""
        left = self.training(key) / "last" if isinstance(outcome, Trained) else self.training(key)
        shutil.rmtree(left, ignore_errors=True)

    def forget_failure(self, key: str) -> None:
        """Delete the outcome of a failed run, so that it is run again."""
        (self.run(key) / FAILED).unlink(missing_ok=True)

    # ---- what is measured -------------------------------------------------------------------------------------------

    def measure(self, key: str) -> Path:
        """Path without suffix of a run's measurement: ``.json`` and ``.safetensors``."""
        return self.folder / "measures" / key[:_KEY]

    def cost(self, key: str) -> Path:
        """File with the cost of an arm."""
        return self.folder / "costs" / f"{key[:_KEY]}.json"

    def painting(self, key: str) -> Path:
        """Folder of painted maps."""
        return self.folder / "paintings" / key[:_KEY]

    @property
    def features(self) -> Path:
        """Folder of the trunk's cached features."""
        return self.folder / "features"

    # ---- one at a time ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, key: str, say: Callable[[str], None] | None = None, what: str = "") -> Iterator[None]:
        """Hold the lock on a key for a ``with`` block; waits, with a line to ``say``, while another one holds it."""
        file = self.folder / "locks" / key[:_KEY]

        def busy(who: str) -> None:
            if say is not None:
                say(f"{what or 'this run'}: {who} works on it ({file}); waiting for it")

        with contextlib.ExitStack() as held:
            with _located(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(file, busy))
            yield


def keep_json(file: Path, value: object) -> None:
    """Write or replace a file of the store, a dataclass or a mapping, with its own SHA-256.

    Raises:
        BundleError: it cannot be written; the previous file is unchanged.
    """
    write_bytes(file, b"".join(sealed(with_place(_json(value)).encode())))


def write_json(file: Path, value: object) -> None:
    """As :func:`keep_json`, without the SHA-256: for files that others read."""
    write_bytes(file, _json(value).encode())


def write_bytes(file: Path, data: bytes) -> None:
    """Write or replace a file.

    Raises:
        BundleError: it cannot be written; the previous file is unchanged.
    """
    with _located(file):
        write_file(file, data)


def kept_json(file: Path) -> dict[str, object] | None:
    """Read what :func:`keep_json` wrote; None if there is no such file, or, with a warning, if it is damaged."""
    try:
        data = read_regular(file, _MOST_BYTES)
        is_sealed(io.BytesIO(data))
        found = parse_json(data)
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        _log.warning("%s: is damaged (%s); it is made again", one_line(file), one_line(error, 120))
        return None
    return {name: x for name, x in found.items() if name != KEY}


def kept(kind: type[T], file: Path, odd: Callable[[T], str] = lambda _: "") -> T | None:
    """Read a dataclass that :func:`keep_json` wrote; None as for :func:`kept_json`, or if it is something else.

    Args:
        kind: the dataclass.
        file: its file.
        odd: says why what is read cannot be what is sought; empty if it can.
    """
    found = kept_json(file)
    if found is None:
        return None
    try:
        made = from_json(kind, found, str(file))
        if line := odd(made):
            raise OptionError(f"{file}: {line}")
    except OptionError as error:
        _log.warning("%s; it is made again", error)
        return None
    return made


def keep_picture(file: Path, data: bytes) -> None:
    """Write or replace a picture of the store, with its SHA-256 in ``NAME.sha256``."""
    write_bytes(_beside(file), f"{hashlib.sha256(data).hexdigest()}  {file.name}\n".encode())
    write_bytes(file, data)


def has_picture(file: Path) -> bool:
    """Whether a picture exists undamaged, else with a warning; pictures of earlier versions have no SHA-256 file."""
    try:
        data = read_regular(file, _MOST_BYTES)
        listed = read_regular(_beside(file), 4096).decode()
    except FileNotFoundError:
        return file.is_file()
    except (OSError, ValueError) as error:
        _log.warning("%s: is damaged (%s); it is made again", one_line(file), one_line(error, 120))
        return False
    if listed != f"{hashlib.sha256(data).hexdigest()}  {file.name}\n":
        _log.warning(
            "%s: is damaged (its SHA-256 is not the one it was written with); it is made again", one_line(file)
        )
        return False
    return True


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.{KEY}")


def _json(value: object) -> str:
    return json.dumps(as_json(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _located(place: Path) -> contextlib.AbstractContextManager[None]:
    """Turn errors of the system into one line that names the file."""
    again = " or choose another folder, then give the same command again: it goes on where it stopped"
    return writing(f"{place}:", again)
