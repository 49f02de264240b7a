"""Whether pictures of some bands may stand in for pictures of others: what a model takes must mean the same."""

from __future__ import annotations

from garnish.pictures.bands import Bands


def bands_differ(mine: Bands, theirs: Bands, me: str, them: str) -> str:
    """What differs between the bands of two sides for whoever takes both, as one line's end; empty: nothing.

    Names, their order and the ends that become 0 and 1 must be equal. Scale, offset and the mark of no data are how
    files are read, which each side does by itself.

    Args:
        mine: bands of the one side.
        theirs: of the other.
        me: how the line calls the one side.
        them: how it calls the other.
    """
    if mine.names != theirs.names:
        return f"{me} has {_listed(mine)}, {them} {_listed(theirs)}; give both the same bands in the same order"
    if _ends(mine) != _ends(theirs) or mine.is_rgb != theirs.is_rgb:
        return (
            f"{me} reads {_named(mine)}, {them} {_named(theirs)}; state the same `channels: {{range: …}}` for both, or"
            " the numbers would mean another thing"
        )
    return ""


def _listed(bands: Bands) -> str:
    names = bands.names if len(bands.names) <= 12 else (*bands.names[:11], f"… ({len(bands.names)} in all)")
    return f"bands {', '.join(names)}"


def _named(bands: Bands) -> str:
    if bands.is_rgb:
        return "8-bit RGB"
    return "the range of the files' type" if bands.range is None else f"range {list(bands.range)}"


def _ends(bands: Bands) -> tuple[tuple[float, float], ...] | None:
    """One pair a band; None: the ends of the file's type."""
    if bands.range is None:
        return None
    first = bands.range[0]
    if isinstance(first, tuple):
        pairs: tuple[tuple[float, float], ...] = bands.range  # type: ignore[assignment]
        return pairs if len(pairs) > 1 else pairs * len(bands.names)
    return ((float(bands.range[0]), float(bands.range[1])),) * len(bands.names)  # type: ignore[arg-type]
