"""Pictures one after the other, of all that callers give: files, folders, patterns, videos, arrays, generators of them.

Shape letters: N pictures, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.errors import DataError, GarnishError
from garnish.files.given_pictures import is_video_file, picture_files
from garnish.predicting.video import VideoFrame, pyav, video_frames


@final
@dataclass(frozen=True)
class PictureSource:
    """One picture that is not read yet.

    Attributes:
        name: of its maps.
        where: its file, or what else tells it from others, for messages.
        given: what the caller gave, or a frame of a video.
        file: its file; None: it is none.
        broken: why it cannot be read, where that is known already: a video that ends in damage, no such file.
    """

    name: str
    where: str
    given: object
    file: Path | None = None
    broken: GarnishError | None = None

    def picture(self) -> object:
        """What was given, or the pixels (H, W, 3) uint8 of a frame; raises DataError where it is known to be broken."""
        if self.broken is not None:
            raise self.broken
        return self.given.pixels() if isinstance(self.given, VideoFrame) else self.given


def picture_sources(given: object, *, every: int = 1) -> Iterator[PictureSource]:
    """The pictures of a file, folder, pattern, video, array, or of an iterable of any of these, in order.

    Arrays and tensors of four axes are pictures along the first. Names that repeat are numbered.

    Args:
        given: what a caller gave; an iterable is asked for as much as is read ahead.
        every: of a video, each so-manieth frame is taken.

    Raises:
        DataError: a path that does not exist, a folder without pictures; of an iterable that picture alone is broken.
    """
    taken: set[str] = set()
    several = _several(given)
    for number, one in enumerate([given] if several is None else several, 1):
        if isinstance(one, str | Path):
            try:
                found = file_sources(picture_files([str(one)]), every=every)
            except DataError as error:
                if several is None:
                    raise
                found = iter([PictureSource(Path(one).stem, str(one), None, broken=error)])
        else:
            name = "picture" if several is None else f"picture{number}"
            found = iter([PictureSource(name, name, one)])
        for source in found:
            name, count = source.name, 2
            while name in taken:
                name, count = f"{source.name}_{count}", count + 1
            taken.add(name)
            yield PictureSource(name, source.where, source.given, source.file, source.broken)


def file_sources(files: Mapping[str, Path], *, every: int = 1) -> Iterator[PictureSource]:
    """The pictures of files by name, and the frames of those that are videos, ``NAME/000123``.

    Args:
        files: name → file.
        every: of a video, each so-manieth frame is taken.
    """
    if any(map(is_video_file, files.values())):
        pyav()  # before anything is predicted
    for name, file in files.items():
        if not is_video_file(file):
            yield PictureSource(name, str(file), file, file)
            continue
        try:
            for frame in video_frames(file, every=every):
                yield PictureSource(f"{name}/{frame.number:06d}", f"{file}, frame {frame.number}", frame, file)
        except DataError as error:
            yield PictureSource(name, str(file), None, file, error)


def _several(given: object) -> Iterable[object] | None:
    """The pictures of an iterable, or None for one picture; a mapping is none of either."""
    if isinstance(given, str | Path | bytes) or not isinstance(given, Iterable) or isinstance(given, Mapping):
        return None
    axes = getattr(given, "ndim", None)
    if axes is not None and axes < 4:  # an array or a tensor is iterable, by rows
        return None
    return given
