"""Pictures that are too large to be held, among others: their maps are written as they are made, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from garnish.decodings.prediction import Prediction
from garnish.errors import GarnishError
from garnish.files.pictures import picture_size
from garnish.pictures.bands import Bands
from garnish.pictures.map_writer import UnwrittenMap
from garnish.pictures.open_raster import open_raster
from garnish.predicting.overlapping import PictureWork, TakenPicture
from garnish.predicting.picture_sources import PictureSource
from garnish.predicting.video import VideoFrame


@final
@dataclass(frozen=True)
class StreamedMaps:
    """The files of a picture that was never held.

    Attributes:
        name: of its maps.
        files: that were written.
    """

    name: str
    files: tuple[Path, ...]


@final
@dataclass(frozen=True)
class Streaming:
    """How large pictures are written.

    Attributes:
        is_large: whether a picture (H, W) is.
        bands: of the pictures.
        write: writes the maps of a file under a name; returns the files, all of them whole.
    """

    is_large: Callable[[tuple[int, int]], bool]
    bands: Bands
    write: Callable[[Path, str], Sequence[Path]]


def with_streams(
    work: PictureWork[Any, Prediction[Any, Any]], stream: Streaming
) -> PictureWork[Any, Prediction[Any, Any] | StreamedMaps]:
    """The same work, but files of large pictures are not read: the thread of passes writes their maps."""

    def read(source: PictureSource) -> TakenPicture:
        if source.file is None or isinstance(source.given, VideoFrame) or source.broken is not None:
            return work.read(source)
        if not stream.is_large(_size(source.file, stream.bands)):
            return work.read(source)
        return TakenPicture(np.empty((0, 0, 3), np.uint8), np.empty((3, 0, 0), np.uint8))

    def run(sources: list[PictureSource], pictures: list[TakenPicture]) -> list[Any]:
        if pictures[0].given.size:
            return work.run(sources, pictures)
        return [_written(source, stream) for source in sources]

    def finish(source: PictureSource, picture: TakenPicture, raw: Any) -> Prediction[Any, Any] | StreamedMaps:
        if picture.given.size:
            return work.finish(source, picture, raw)
        if isinstance(raw, GarnishError):
            raise raw
        streamed: StreamedMaps = raw
        return streamed

    return PictureWork(read=read, run=run, finish=finish, batch=lambda shape: work.batch(shape) if shape[1] else 1)


def _size(file: Path, bands: Bands) -> tuple[int, int]:
    if bands.is_rgb:
        return picture_size(file)
    with open_raster(file, len(bands.names)) as raster:
        return raster.facts.size


def _written(source: PictureSource, stream: Streaming) -> StreamedMaps | GarnishError:
    assert source.file is not None, "what is streamed is a file"
    try:
        return StreamedMaps(source.name, tuple(stream.write(source.file, source.name)))
    except UnwrittenMap:  # which ends the run, as a file that cannot be written does
        raise
    except GarnishError as error:
        return error
