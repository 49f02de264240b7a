"""Names of pictures as annotation files have them: paths of other machines, addresses, names that a server gave."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from garnish.errors import DataError, shown

#: Longest path or address, in characters.
_LONGEST = 4096


def picture_name(text: object, where: str) -> str:
    """A relative path with ``/`` between its parts: what is left of a path of any system.

    Raises:
        DataError: no text, or nothing is left.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise DataError(f"{where}: expected the path of a picture, got {shown(text)}; export the file again")
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    name = "/".join(part for part in parts if not (len(part) == 2 and part[1] == ":"))
    if not name or not name.isprintable():
        raise DataError(f"{where}: {shown(text)} is no path of a picture; export the file again")
    return name


def address_name(text: str, where: str) -> str:
    """The path in an address (``https://…``, ``s3://…``, ``/data/local-files/?d=…``), as :func:`picture_name`."""
    try:
        found = urlsplit(text)
        asked = parse_qs(found.query).get("d") if found.path.rstrip("/").endswith("local-files") else None
    except ValueError:
        raise DataError(f"{where}: {shown(text)} is no address of a picture; export the file again") from None
    if asked:
        return picture_name(asked[0], where)
    # "C:\\pictures\\a.jpg" has a scheme, too; "a#1.jpg" is a name and no place in a page
    return picture_name(unquote(found.path) if "://" in text else text, where)
