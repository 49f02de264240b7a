"""The files of a place that fsspec reaches: listing, reading and writing, each as one request that may be repeated."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

from garnish.errors import DataError, OptionError, one_line, shown
from garnish.stores.facts import PlaceFacts
from garnish.stores.retrying import IncompleteAnswer, Retrying

#: Protocols of which an upload is shown when it ends, never before, and never half.
WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "memory")
#: fsspec's protocols of Amazon's API, which lists in pages.
_S3 = ("s3", "s3a")
#: Names that such a page has.
_PAGE = 1000
#: Files up to so many bytes are sent in one request; longer ones by the client, in parts that it repeats itself.
ONE_REQUEST = 64 * 2**20
#: Tries of each part of such a file.
_PART_TRIES = 5
_INSTALL = "pip install 'garnish[store]'"


def check_protocol(scheme: str) -> None:
    """Raise OptionError unless fsspec has a protocol, and what it needs is installed."""
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise OptionError(f"{scheme}://: needs fsspec, which is not installed; {_INSTALL}") from error
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        install = _INSTALL if scheme in _S3 else "install it"
        raise OptionError(f"{scheme}://: a package is missing ({one_line(error, 160)}); {install}") from error
    except ValueError as error:
        raise OptionError(
            f"{shown(scheme)}://: is no protocol that fsspec knows; write s3://, gs://, abfs://, file:// or a path"
        ) from error


@final
class RemoteFiles:
    """Files below a prefix of a store. Names are checked already.

    Args:
        scheme: of the address, which fsspec knows.
        address: the whole of it.
        retrying: does the requests.
    """

    def __init__(self, scheme: str, address: str, retrying: Retrying) -> None:
        self._scheme, self._address, self._retrying = scheme, address, retrying
        self._made: dict[bool, tuple[int, Any]] = {}

    def deeper(self, address: str) -> RemoteFiles:
        """The files below an address of this store, over the same connections."""
        made = RemoteFiles(self._scheme, address, self._retrying)
        made._made = self._made
        return made

    def below(self, folder: str) -> Iterator[tuple[str, PlaceFacts]]:
        """Name and facts of all files below a folder of it, in the order of the store."""
        top = self._path(folder) if folder else self._root()
        found = self._pages(top) if self._scheme in _S3 else self._walked(top)
        cut = len(self._root().rstrip("/")) + 1
        for path, info in found:
            if not path.endswith("/") and (facts := PlaceFacts.of(info)) is not None:
                yield path[cut:], facts

    def facts(self, name: str) -> PlaceFacts | None:
        """Of a file; None: there is none."""
        path = self._path(name)

        def ask() -> PlaceFacts | None:
            try:
                return PlaceFacts.of(self._system().info(path))
            except FileNotFoundError:
                return None

        return self._retrying(f"asking for {name}", ask)

    def part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes from ``start`` to before ``stop``, which must exist.

        Raises:
            DataError: fewer arrived again and again, or it cannot be read.
        """
        path = self._path(name)

        def get() -> bytes:
            data = bytes(self._system().cat_file(path, start=start, end=stop)) if stop > start else b""
            if len(data) != stop - start:
                raise IncompleteAnswer(f"{len(data):,} bytes came of {stop - start:,}")
            return data

        return self._retrying(f"reading {name}", get)

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file in one request.

        Raises:
            DataError: it failed, or the protocol would show half a file.
        """
        self._check_whole(name)
        path = self._path(name)
        self._retrying(f"writing {name}", lambda: self._system().pipe_file(path, data))

    def send(self, file: Path, name: str) -> None:
        """Send a file of this machine."""
        try:
            size = file.stat().st_size
            if size <= ONE_REQUEST or self._scheme == "memory":
                return self.write(name, file.read_bytes())
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); check the path and its rights") from error
        self._check_whole(name)
        path = self._path(name)
        self._retrying(f"sending {name}", lambda: self._system(in_parts=True).put_file(str(file), path))

    def remove(self, name: str) -> None:
        """Remove a file; nothing where there is none."""
        path = self._path(name)

        def remove() -> None:
            try:
                self._system().rm_file(path)
            except FileNotFoundError:  # never there, or the answer to an earlier try was lost
                return

        self._retrying(f"removing {name}", remove)

    def _check_whole(self, name: str) -> None:
        if self._scheme not in WHOLE:
            raise DataError(
                f"{self._address}: {name} is not written, since {self._scheme}:// would show half a file meanwhile;"
                " write to a folder, or to s3://, gs:// or abfs://"
            )

    def _root(self) -> str:
        return str(type(self._system())._strip_protocol(self._address))

    def _path(self, name: str) -> str:
        return f"{self._root().rstrip('/')}/{name}"

    def _walked(self, top: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Folder by folder, each one request."""
        folders = [top]
        while folders:
            here = folders.pop()
            for info in self._retrying("listing", lambda path=here: self._held(path)):  # type: ignore[misc]
                path = str(info["name"])
                if info.get("type") == "directory":
                    folders.append(path)
                else:
                    yield path, info

    def _held(self, path: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._system().ls(path, detail=True)
        except FileNotFoundError:
            return []
        return [info for info in found if str(info["name"]).rstrip("/") != path.rstrip("/")]

    def _pages(self, top: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of Amazon's API by pages of a thousand, each a request, so that one that fails does not begin anew."""
        bucket, _, prefix = top.partition("/")
        asked: dict[str, Any] = {"Bucket": bucket, "MaxKeys": _PAGE, **({"Prefix": f"{prefix}/"} if prefix else {})}
        while True:
            list_page: Callable[[], dict[str, Any]] = lambda: self._system().call_s3("list_objects_v2", **asked)  # noqa: E731
            page = self._retrying("listing", list_page)
            for info in page.get("Contents", []):
                yield f"{bucket}/{info['Key']}", info
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _system(self, *, in_parts: bool = False) -> Any:
        """The file system of fsspec, made once in each process: its clients must not be shared with a forked one."""
        made = self._made.get(in_parts)
        if made is None or made[0] != os.getpid():
            options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
            if self._scheme in _S3:
                tries = _PART_TRIES if in_parts else 1
                options["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": tries}}
            system = importlib.import_module("fsspec").filesystem(self._scheme, **options)
            if self._scheme in _S3:
                system.retries = 1
            made = self._made[in_parts] = (os.getpid(), system)
        return made[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}
