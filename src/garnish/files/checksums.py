"""SHA-256 checksums of everything that is saved and loaded again, so that damaged files are detected.

A folder of files (a bundle) contains ``SHA256SUMS``, which ``sha256sum -c SHA256SUMS`` can check. A file that is
replaced on its own (a checkpoint, a result, cached features) contains its own digest: that of the whole file with 64
zeros in place of the digest, as the first key, ``sha256``, of its JSON (in a safetensors file, of the JSON in its
metadata). Files of earlier versions have neither and are read unchecked. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from garnish.errors import BundleError, one_line
from garnish.files.regular import read_regular

SUMS = "SHA256SUMS"
KEY = "sha256"

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")
_ZEROS = "0" * 64
#: The digest in a JSON file, and in JSON that is a string in a safetensors header, where its quotes are escaped.
_IN_JSON = re.compile(rb'\{"sha256": "([0-9a-f]{64})"')
_IN_HEADER = re.compile(rb':\s*"\{\\"sha256\\": \\"([0-9a-f]{64})\\"')
#: The same with a damaged name or digest.
_ALMOST = re.compile(rb'\{\\?.[^"\\]{6}\\?.: \\?.[^"\\]{64}\\?.[,}]', re.DOTALL)
#: Largest list of a folder's digests that is read, bytes; ours has two or three lines.
_MOST_SUMS = 2**20
#: Largest header that safetensors reads, bytes.
_MOST_HEADER = 100_000_000


# ---- folders ----------------------------------------------------------------------------------------------------


def with_sums(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """These files (by name) and their ``SHA256SUMS``."""
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())]
    return {**files, SUMS: "".join(lines).encode()}


def check_sum(file: Path, data: bytes, *, listed: bool = True) -> None:
    """Check a file's bytes against ``SHA256SUMS`` beside it; folders of an earlier version have none and pass.

    Args:
        file: its path.
        data: its bytes.
        listed: False: the list may lack the file, which was put into the folder since.

    Raises:
        BundleError: the digest differs or is missing, or the list cannot be read.
    """
    sums = file.with_name(SUMS)
    remedy = "copy or save it again"
    try:
        text = read_regular(sums, _MOST_SUMS).decode("utf-8")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise BundleError(f"{sums}: cannot be read ({one_line(error, 120)}); {remedy}") from error
    lines = [_LINE.fullmatch(line) for line in text.splitlines() if line.strip()]
    found = {line[2]: line[1].lower() for line in lines if line is not None}
    if None not in lines and file.name not in found and not listed:
        return
    if None in lines or file.name not in found:
        raise BundleError(f"{sums}: is damaged (it has no digest of {file.name}); {remedy}")
    if found[file.name] != hashlib.sha256(data).hexdigest():
        raise BundleError(f"{file}: differs from what was saved (its SHA-256 is not that in {SUMS}); {remedy}")


# ---- single files -----------------------------------------------------------------------------------------------


def with_place(text: str) -> str:
    """The text of a JSON mapping with a placeholder for the digest of the file that it is written to."""
    assert text.startswith("{") and f'{{"{KEY}"' not in text[:10], "a mapping without a digest"
    comma = "" if text[1:].lstrip().startswith("}") else ","
    return f'{{"{KEY}": "{_ZEROS}"{comma}{text[1:]}'


def sealed(data: bytes) -> list[memoryview]:
    """The bytes of a file with its digest in the placeholder of :func:`with_place`, in pieces to be written."""
    at = _place(data)
    assert at is not None and data[at : at + 64] == _ZEROS.encode(), "its JSON has room for the digest"
    view = memoryview(data)
    return [view[:at], memoryview(hashlib.sha256(data).hexdigest().encode()), view[at + 64 :]]


def is_sealed(stream: BinaryIO) -> bool:
    """Whether a file contains its digest, which is then checked; the file is read to its end.

    Raises:
        ValueError: the digest is not that of the file, or cannot be read.
    """
    start = stream.read(8)
    size = 0 if start[:1] == b"{" else int.from_bytes(start, "little")
    head = start + stream.read(min(size, _MOST_HEADER) if size else 200)
    at = _place(head)
    if at is None:
        if _ALMOST.search(head[: size + 8] if size else head):
            raise ValueError("its SHA-256 cannot be read")
        return False
    made = hashlib.sha256(head[:at] + _ZEROS.encode())
    made.update(memoryview(head)[at + 64 :])
    while piece := stream.read(1 << 20):
        made.update(piece)
    if made.hexdigest().encode() != head[at : at + 64]:
        raise ValueError("its SHA-256 is not the one it was written with")
    return True


def _place(head: bytes) -> int | None:
    """Offset of the 64 digits in the beginning of a file; None if there are none."""
    if head[:1] == b"{":
        found = _IN_JSON.match(head)
    else:
        found = _IN_HEADER.search(head, 8, min(8 + int.from_bytes(head[:8], "little"), len(head)))
    return None if found is None else found.start(1)
