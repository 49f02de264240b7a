"""onnxruntime-web, which runs graphs in browsers: its files, out of the package of npm's registry.

They are not part of garnish: npm fetches the package when a page is asked for (and keeps it for the next time), and it
is used only if it has the digest that the registry gave for this version.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from garnish.errors import DataError, MissingExtraError, one_line
from garnish.files.path_text import given_path
from garnish.files.regular import read_regular

VERSION = "1.30.0"
#: ``npm view onnxruntime-web@VERSION dist.integrity``
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
#: Of the package's many builds, the one for CPUs alone.
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
#: Seconds that npm may take for 33 MB.
_LONGEST = 900
_MOST = 2**28
_BY_HAND = (
    f"or run 'npm pack onnxruntime-web@{VERSION}' elsewhere and give its {_PACKAGE} with --onnxruntime-web FILE"
    " (in Python, page=FILE)"
)


def onnxruntime_web_files(package: str | os.PathLike[str] | None = None) -> dict[str, bytes]:
    """:data:`FILES` by name.

    Args:
        package: the package's file, ``onnxruntime-web-VERSION.tgz``; None: npm fetches it.

    Raises:
        MissingExtraError: there is no npm, or it cannot fetch the package. DataError: a file that is not that package.
    """
    if package is not None:
        file = given_path(package, "onnxruntime-web", DataError)
        return _unpacked(_read(file), str(file))
    with tempfile.TemporaryDirectory() as folder:
        return _unpacked(_read(_fetched(Path(folder))), _PACKAGE)


def _fetched(folder: Path) -> Path:
    """The package, fetched into an empty folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingExtraError(
            f"a page needs onnxruntime-web, which npm fetches, and there is no npm; install it, {_BY_HAND}"
        )
    words = [npm, "pack", f"onnxruntime-web@{VERSION}", "--ignore-scripts", "--prefer-offline", "--silent"]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=_LONGEST, check=False)
        told = done.stderr or done.stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        told = str(error)
    if not (folder / _PACKAGE).is_file():
        reason = one_line(told, 200) or "it says nothing"
        raise MissingExtraError(
            f"npm cannot fetch onnxruntime-web {VERSION} ({reason}); check its registry, {_BY_HAND}"
        )
    return folder / _PACKAGE


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, _MOST)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error, 120)}); give {_PACKAGE} of npm") from error


def _unpacked(data: bytes, name: str) -> dict[str, bytes]:
    kind, digest = INTEGRITY.split("-", 1)
    if base64.b64encode(hashlib.new(kind, data).digest()).decode() != digest:
        raise DataError(
            f"{name}: is not onnxruntime-web {VERSION} of npm's registry (its {kind.upper()} differs); fetch it again"
        )
    found = {}
    with tarfile.open(fileobj=BytesIO(data), mode="r:gz") as archive:  # known, by its digest
        for file in FILES:
            held = archive.extractfile(f"package/dist/{file}")
            assert held is not None, "the package is the one that FILES was written for"
            found[file] = held.read()
    return found
