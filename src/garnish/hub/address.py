"""``hub:user/name[/folder][@revision]``: addresses of bundles on the Hugging Face Hub. No network is asked here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.errors import OptionError, shown

PREFIX = "hub:"
#: Of the Hub's own rules: letters, digits, dots, dashes and underscores, at most 96 of them.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,94}")
#: Of a branch, a tag, a commit or ``refs/pr/1``; git forbids more, which no repository has then.
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile("[0-9a-f]{40}")
#: As git shows commits; shorter ones are words too.
_SHORT_COMMIT = re.compile("[0-9a-f]{7,39}")
#: Folders within a repository.
_MOST_FOLDERS = 8
#: The folder that huggingface_hub's cache keeps a commit in.
_CACHED = re.compile(r"models--(.+)--(.+)")

_FORM = "write hub:user/name, hub:user/name@revision or hub:user/name/folder"


@final
@dataclass(frozen=True)
class HubAddress:
    """A bundle on the Hub.

    Attributes:
        repository: ``user/name``.
        folder: the bundle's folder within it, with ``/``; empty: the repository's own.
        revision: a branch, a tag or a commit; None: the branch ``main``.
    """

    repository: str
    folder: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, text: str | os.PathLike[str], form: str = _FORM) -> HubAddress:
        """The address that a text is, with or without ``hub:`` in front; ``form`` says in messages what to write.

        Raises:
            OptionError: it is none.
        """
        whole = os.fspath(text)
        rest, at, revision = whole.removeprefix(PREFIX).partition("@")
        user, *names = rest.split("/")
        if not names:
            raise OptionError(f"{shown(whole, 120)}: no repository of the Hub is named; {form}")
        for part in (user, names[0]):
            if not _NAME.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
                raise OptionError(f"{shown(whole, 120)}: {shown(part)} is no name of the Hub; {form}")
        folders = names[1:]
        odd = [part for part in folders if not _FOLDER.fullmatch(part)]
        if odd or len(folders) > _MOST_FOLDERS:
            wrong = shown(odd[0]) if odd else f"{len(folders)} levels"
            raise OptionError(f"{shown(whole, 120)}: {wrong} is no folder of a bundle; {form}")
        if at:
            _check_revision(revision, whole)
        return cls(f"{user}/{names[0]}", "/".join(folders), revision if at else None)

    def at(self, revision: str | None, option: str = "revision") -> HubAddress:
        """The same at another revision; None changes nothing.

        Raises:
            OptionError: no revision, or the address names another one already; ``option`` names it in the message.
        """
        if revision is None:
            return self
        _check_revision(revision, option)
        if self.revision not in (None, revision):
            raise OptionError(f"{option}: {self} names the revision {self.revision} already; give one of the two")
        return HubAddress(self.repository, self.folder, revision)

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @property
    def name(self) -> str:
        """What a bundle from there is called where a folder's name would be: the last part."""
        return (self.folder or self.repository).rpartition("/")[2]

    def file(self, name: str) -> str:
        """The path of a file of the bundle within the repository."""
        return f"{self.folder}/{name}" if self.folder else name

    def __str__(self) -> str:
        folder = f"/{self.folder}" if self.folder else ""
        return f"{PREFIX}{self.repository}{folder}" + ("" if self.revision is None else f"@{self.revision}")


def hub_hint(path: str | os.PathLike[str]) -> str:
    """How a path that is not there would be asked for on the Hub, if it has the form of a name there; else nothing."""
    text = os.fspath(path)
    if text.partition("@")[0].count("/") != 1 or is_hub(text):
        return ""
    try:
        return f", or {HubAddress.parse(text)} for one on the Hub"
    except OptionError:
        return ""


def is_short_commit(revision: str | None) -> bool:
    """Whether a revision looks like the first digits of a commit, which the Hub does not resolve."""
    return revision is not None and _SHORT_COMMIT.fullmatch(revision) is not None


def is_hub(text: object) -> bool:
    """Whether a path is an address of the Hub: whether it begins with ``hub:``, whatever lies on the disk."""
    return isinstance(text, str | os.PathLike) and str(os.fspath(text)).startswith(PREFIX)


def cached_address(folder: str | os.PathLike[str]) -> HubAddress | None:
    """The address, with its commit, of a bundle in the cache of huggingface_hub; None: a path elsewhere."""
    parts = Path(os.path.abspath(folder)).parts  # noqa: PTH100 (links are not followed)
    for place in range(len(parts) - 2):
        found = _CACHED.fullmatch(parts[place])
        if found is not None and parts[place + 1] == "snapshots" and _COMMIT.fullmatch(parts[place + 2]):
            rest = "".join(f"/{part}" for part in parts[place + 3 :])
            try:
                return HubAddress.parse(f"{PREFIX}{found[1]}/{found[2]}{rest}@{parts[place + 2]}")
            except OptionError:  # another program's folder that only looks alike
                return None
    return None


def _check_revision(revision: str, where: str) -> None:
    odd = "//" in revision or ".." in revision or revision.endswith(("/", ".", ".lock"))
    if odd or not _REVISION.fullmatch(revision):
        raise OptionError(f"{shown(where, 120)}: {shown(revision)} is no revision; give a branch, a tag or a commit")
