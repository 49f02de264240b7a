"""``UploadFolder``: where uploaded bundles lie; each appears whole under its name, or not at all.

Names that begin with a point are of what is being written or removed; what a kill left of it goes at the next start.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import final

from garnish.bundles.bundle_json import DESCRIPTION, WEIGHTS
from garnish.errors import BundleError, shown
from garnish.files.atomic import write_folder, writing
from garnish.files.checksums import SUMS, with_sums
from garnish.serving.refusals import TooLarge

#: Names of bundles of a server; a folder of each may lie in any file system.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_STAGED, _WRITING, _REPLACED, _REMOVED = ".incoming-", ".writing", ".replaced", ".removed"


def check_bundle_name(name: str) -> None:
    """Raise :class:`BundleError` for a name that no bundle of a server can have."""
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"bundle name {shown(name)}: use letters, digits, '.', '-' and '_', a letter or digit first, 100 at most"
        )


@final
class UploadFolder:
    """Uploaded bundles below a folder that one server writes into.

    Args:
        folder: made if it is not there.
        most: bytes that the files of a bundle may have together.

    Raises:
        BundleError: it cannot be made or read.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._most = most
        self._numbers = itertools.count()
        with writing(f"{folder}: the folder of uploads", ", or name another folder"):
            folder.mkdir(parents=True, exist_ok=True)
            self._folder = folder.resolve()
            for entry in list(self._folder.iterdir()):
                self._mend(entry)

    def _mend(self, entry: Path) -> None:
        """Remove what a kill left, or bring back what it was about to replace."""
        name = entry.name
        if name.startswith(".") and name.endswith(_REPLACED):
            former = entry.with_name(name[1 : -len(_REPLACED)])
            if not former.exists():
                entry.rename(former)
                return
        elif not (name.startswith(_STAGED) or (name.startswith(".") and name.endswith((_WRITING, _REMOVED)))):
            return
        _remove(entry)

    def bundles(self) -> dict[str, Path]:
        """Name → folder of what was uploaded."""
        found = [entry for entry in self._folder.iterdir() if _NAME.fullmatch(entry.name) and not entry.is_symlink()]
        return {entry.name: entry for entry in sorted(found) if (entry / DESCRIPTION).is_file()}

    def checked(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """The files of an upload with their list of sums, which is made where it is not given.

        Raises:
            BundleError: other files than those of a bundle. TooLarge: too many bytes.
        """
        for name in (DESCRIPTION, WEIGHTS):
            if name not in files:
                raise BundleError(f"the upload has no {name}; send {DESCRIPTION} and {WEIGHTS}")
        if odd := [name for name in files if name not in (DESCRIPTION, WEIGHTS, SUMS)]:
            raise BundleError(f"the upload holds {shown(odd[0])}; send {DESCRIPTION} and {WEIGHTS} (and {SUMS}) alone")
        if (size := sum(map(len, files.values()))) > self._most:
            raise TooLarge(f"the upload has {size:,} bytes, more than the {self._most:,} of --max-upload")
        return dict(files) if SUMS in files else with_sums(files)

    @contextmanager
    def staged(self, name: str, files: Mapping[str, bytes]) -> Iterator[Path]:
        """A folder with these files that nobody else sees, for a ``with`` block.

        Raises:
            BundleError: no space; its cause is the OSError.
        """
        folder = self._folder / f"{_STAGED}{next(self._numbers)}"
        try:
            with _saving(name):
                folder.mkdir()
                for file, data in files.items():
                    with (folder / file).open("xb") as opened:
                        opened.write(data)
            yield folder
        finally:
            _remove(folder)

    def write(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write or replace a bundle: after a kill at any moment the old one or the new one is there.

        Raises:
            BundleError: no space; its cause is the OSError. The old one is untouched.
        """
        with _saving(name):
            write_folder(self._folder / name, files)
        return self._folder / name

    def remove(self, name: str) -> None:
        """Remove a bundle."""
        gone = self._folder / f".{name}{_REMOVED}"
        with writing(f"bundle {name!r}: its removal", ", and remove it again"):
            _remove(gone)
            (self._folder / name).rename(gone)
        _remove(gone)


def _saving(name: str) -> AbstractContextManager[None]:
    return writing(f"bundle {name!r}", " on the server; an earlier bundle of this name is untouched")


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
