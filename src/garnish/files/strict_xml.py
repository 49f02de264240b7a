"""Reading untrusted XML tag by tag: no document type, so no entities; bounded in size and depth. No torch is needed.

The parser is the standard library's expat. What makes XML dangerous (entities that grow, files and addresses that they
name) needs a document type, at whose first sign reading ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from garnish.errors import DataError, one_line, shown
from garnish.files.regular import open_regular

#: Deepest nesting, and bytes that are parsed together.
_MOST_DEPTH, _TOGETHER = 64, 1 << 22


class _Refused(Exception):
    """What the file may not hold."""


def read_xml(
    file: Path,
    most: int,
    remedy: str,
    begin: Callable[[str, Mapping[str, str], int], None],
    end: Callable[[str, str, int], None],
) -> None:
    """Walk the tags of an XML file in their order.

    Args:
        file: its path.
        most: largest size, in bytes.
        remedy: what to do if it cannot be read.
        begin: called with the name of a tag, its attributes and its line.
        end: called with the name of a tag, the text that directly follows its beginning, stripped, and the line.

    Raises:
        DataError: missing, too large, not well formed, nested too deeply, or with a document type; what the two
            functions raise passes.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    texts: list[list[str]] = []

    def started(name: str, attributes: dict[str, str]) -> None:
        if len(texts) >= _MOST_DEPTH:
            raise _Refused(f"tags are nested more than {_MOST_DEPTH} deep")
        texts.append([])
        begin(name, attributes, parser.CurrentLineNumber)

    def heard(text: str) -> None:
        if texts:
            texts[-1].append(text)

    def ended(name: str) -> None:
        end(name, "".join(texts.pop()).strip(), parser.CurrentLineNumber)

    def refused(*_: object) -> NoReturn:
        raise _Refused("it has a document type (<!DOCTYPE …>), which files of annotation tools have not")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = started, ended, heard
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refused
    try:
        with open_regular(file, most) as stream:
            while part := stream.read(_TOGETHER):
                parser.Parse(part, False)
            parser.Parse(b"", True)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error, 120)}); {remedy}") from None
    except _Refused as error:
        raise DataError(f"{file}, line {parser.CurrentLineNumber}: {error}; {remedy}") from None
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: is damaged ({shown(one_line(error, 120), 130)}); {remedy}") from None
