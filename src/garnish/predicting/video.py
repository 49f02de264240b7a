"""Frames of a video, through PyAV.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from garnish.errors import DataError, MissingExtraError, one_line
from garnish.files.pictures import MAX_PIXELS, MAX_SIDE
from garnish.files.regular import UnfitFile, open_regular
from garnish.output import logger

_log = logger(__name__)

#: Largest video that is read, bytes.
_MOST_BYTES = 2**40


@final
@dataclass(frozen=True)
class VideoFrame:
    """One frame, decoded and not yet converted.

    Attributes:
        number: of the frame in its video, from 0.
        frame: as PyAV has it.
    """

    number: int
    frame: Any

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, turned upright as the video says."""
        turned: np.ndarray = np.rot90(self.frame.to_ndarray(format="rgb24"), (self.frame.rotation or 0) // 90)
        return np.ascontiguousarray(turned)


@final
class VideoFacts(NamedTuple):
    """What a video's header says.

    Attributes:
        frames: their number; None: not said.
        fps: frames a second on average; None: not said.
        size: (H, W) as stored.
    """

    frames: int | None
    fps: float | None
    size: tuple[int, int]


def video_facts(file: Path) -> VideoFacts:
    """What the header says. Raises as :func:`video_frames`."""
    with _opened(file) as container:
        return _facts(container)


def video_frames(file: Path, *, every: int = 1) -> Iterator[VideoFrame]:
    """The frames of the first video stream, as they are shown; one at a time.

    Args:
        file: the video.
        every: only frames 0, ``every``, 2·``every``, …

    Raises:
        DataError: no video, damaged (where the damage is reached), of too many pixels.
        MissingExtraError: PyAV is not installed.
    """
    with _opened(file) as container:
        facts = _facts(container)
        count = "" if facts.frames is None else f"{facts.frames} frames, "
        speed = "frames per second unknown" if facts.fps is None else f"{facts.fps:g} per second"
        step = f", of which one in {every} is taken" if every > 1 else ""
        _log.info("%s: %s%s%s", file, count, speed, step)
        number = 0
        try:
            for frame in container.decode(video=0):
                if number % every == 0:
                    _check_size(file, frame.height, frame.width)
                    yield VideoFrame(number, frame)
                number += 1
        except pyav().error.FFmpegError as error:
            raise DataError(
                f"{file}: damaged after frame {number} ({one_line(error, 120)}); replace the file"
            ) from error
        if not number:
            raise DataError(f"{file}: holds no frame; replace the file")
        if missing := _missing(container, facts, number, frame.time):
            _log.warning("%s: ends after %s that its header tells; it may have been cut short", file, missing)


def _missing(container: Any, facts: VideoFacts, number: int, last: float | None) -> str:
    """What is there of what the header tells, in words; empty: nothing is missing.

    Where frames are not counted, a second or 2 % may be: sound may be longer, and the time of the last frame is when it
    begins.

    Args:
        container: that was read to its end.
        facts: of its header.
        number: of frames that were read.
        last: when the last of them is shown, in seconds.
    """
    if facts.frames is not None:
        return f"{number} of {facts.frames} frames" if number < facts.frames else ""
    if container.duration is None or last is None:
        return ""
    told = container.duration / 1e6
    return f"{last:.1f} of {told:.1f} seconds" if last + max(1.0, 0.02 * told) < told else ""


def _facts(container: Any) -> VideoFacts:
    stream = container.streams.video[0]
    return VideoFacts(
        stream.frames or None,
        float(stream.average_rate) if stream.average_rate else None,
        (stream.codec_context.height, stream.codec_context.width),
    )


def _opened(file: Path) -> Any:
    """The container, of a regular file whose frames have an allowed size."""
    library = pyav()
    try:
        open_regular(file, _MOST_BYTES).close()
        container = library.open(str(file), metadata_errors="replace", options={"protocol_whitelist": "file"})
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; check the path") from None
    except (UnfitFile, library.error.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as a video ({one_line(error, 120)}); replace the file") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{file}: holds no video; give another file")
    try:
        _check_size(file, *_facts(container).size)
    except DataError:
        container.close()
        raise
    container.streams.video[0].thread_type = "NONE"  # the threads of a machine are the passes'
    return container


def _check_size(file: Path, height: int, width: int) -> None:
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise DataError(f"{file}: frames of {width}x{height} are larger than is read; make the video smaller")


def pyav() -> Any:
    """The library, which has no types; raises MissingExtraError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            f"videos are read with PyAV, which cannot be imported ({one_line(error, 120)}); pip install"
            " 'garnish[video]'"
        ) from error
    return av
