"""Parts of a ``multipart/form-data`` body that is in memory, which stay there: forms of others go to the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from garnish.errors import one_line
from garnish.serving.http_refusals import HttpRefusal

_MOST_HEADERS, _LONGEST_HEADER, _LONGEST_BOUNDARY = 8, 1024, 70


@final
@dataclass(frozen=True, eq=False)
class FormPart:
    """One part.

    Attributes:
        name: of its field.
        data: its content.
        is_file: whether it says a file's name, which nobody reads.
    """

    name: str
    data: bytes
    is_file: bool


@final
class _Reader:
    """Gathers what the parser calls out."""

    def __init__(self, most: int) -> None:
        self.most, self.parts, self.is_whole = most, list[FormPart](), False
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[str, bytes] = {}
        self._data: list[bytes] = []

    def on_part_begin(self) -> None:
        if len(self.parts) >= self.most:
            raise HttpRefusal(413, f"the form has more than {self.most} parts; send fewer")
        self._headers, self._data = {}, []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        name = self._header.decode("latin-1").strip().lower()
        if name in self._headers:
            raise _broken(f"a part says {one_line(name, 40)} twice")
        self._headers[name] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def on_part_end(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", b""))
        if kind.lower() != b"form-data" or b"name" not in options:
            raise _broken("a part has no Content-Disposition: form-data with a name")
        encoding = self._headers.get("content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):
            raise _broken("a part has a Content-Transfer-Encoding; send its bytes as they are")
        try:
            name = options[b"name"].decode("utf-8")
        except UnicodeDecodeError:
            raise _broken("the name of a part is not UTF-8") from None
        self.parts.append(FormPart(name, b"".join(self._data), b"filename" in options))

    def on_end(self) -> None:
        self.is_whole = True


def read_form(body: bytes, content_type: str, most: int) -> list[FormPart]:
    """The parts of a form, in order.

    Args:
        body: all of it.
        content_type: the header, with its boundary.
        most: parts that are taken.

    Raises:
        HttpRefusal: 400, not a whole form; 413, more parts.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise _broken(f"Content-Type has no boundary of 1 to {_LONGEST_BOUNDARY} characters")
    reader = _Reader(most)
    names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "end")
    try:
        parser = MultipartParser(
            boundary,
            {f"on_{name}": getattr(reader, f"on_{name}") for name in names},  # type: ignore[arg-type]
            max_header_count=_MOST_HEADERS,
            max_header_size=_LONGEST_HEADER,
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise _broken(one_line(error, 120)) from error
    if not reader.is_whole:
        raise _broken("it ends before its last boundary")
    return reader.parts


def _broken(what: str) -> HttpRefusal:
    return HttpRefusal(400, f"the form cannot be read: {what}; send multipart/form-data")
