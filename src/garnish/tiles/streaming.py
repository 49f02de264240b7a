"""Maps of a picture that is too large to be held: read by windows, written row by row as tiled TIFF.

Shape letters: C bands, H W pixels of the picture, h w of a window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.files.band_names import RED_GREEN_BLUE, misplaced_band
from garnish.files.pictures import read_picture
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import bands_of_file
from garnish.pictures.map_writer import MapWriter
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import Georeference, Raster, Window
from garnish.tiles.blending import FinishedMaps
from garnish.tiles.empty_rows import EmptyRows, stored_nothing
from garnish.tiles.passes import Reader, Runner, planes_reader, run_windows
from garnish.tiles.tiling import Tiling

#: Largest picture of which commands hold the maps, and write them as PNG, with a sheet: 4096 by 4096. A picture and
#: five maps are some 25 bytes a pixel, so less than half a gigabyte.
HELD_PIXELS = 2**24
#: Seconds of work on one picture after which it is said how far it is.
_QUIET = 15


def stream_maps(
    file: Path,
    stem: Path,
    tasks: Mapping[str, Decoding],
    run: Runner,
    *,
    bands: Bands,
    step: int,
    tiling: Tiling,
    told: Callable[[str], None],
) -> dict[str, Path]:
    """Write ``STEM_TASK.tif`` of each task, georeferenced where the picture is: what its map file would hold.

    Args:
        file: the picture.
        stem: folder and beginning of the names.
        tasks: what the outputs mean.
        run: runs a window.
        bands: of the picture.
        step: stride of the trunk, in pixels.
        tiling: how it is run.
        told: takes a line that says so, and one every :data:`_QUIET` seconds that says how far it is.

    Returns:
        Task → file. None is there before the picture is done.

    Raises:
        DataError: a picture that cannot be read, a file that cannot be written. Otherwise as ``run``.
    """
    with open_raster(file, None if bands.is_rgb else len(bands.names)) as raster:
        size, place = raster.facts.size, raster.facts.place
        plan = tiling.plan(size, step)
        told(f"{file}: {plan}; only maps are written, row by row as TIFF")
        read = EmptyRows(raster_reader(raster, bands, file), size[1])
        files = _MapFiles(stem, size, place, tasks, read, _Rows(str(file), size[0], told))
        try:
            finishing = {task: (decoding, FinishedMaps(decoding, stored=True)) for task, decoding in tasks.items()}
            run_windows(plan, read, run, finishing, files, flip=tiling.flip)
            return files.close()
        except BaseException:
            files.abort()
            raise


def is_streamed(size: tuple[int, int], tiling: Tiling) -> bool:
    """Whether commands write the maps of a picture (H, W) row by row; not where it is to be run whole."""
    return tiling.tile is not None and size[0] * size[1] > HELD_PIXELS


def stream_file(stem: Path, task: str) -> Path:
    """The file of a task's map."""
    return stem.with_name(f"{stem.name}_{task}.tif")


def raster_reader(raster: Raster, bands: Bands, file: Path) -> Reader:
    """Windows of an open file as a model takes them: RGB (3, h, w) uint8, other bands (C, h, w) float32 values.

    An ordinary picture of a format that is read as a whole, or with other numbers than 8-bit RGB, is read once, and
    held in 3 bytes a pixel.
    """
    facts = raster.facts
    if not bands.is_rgb:
        order, found = bands_of_file(file, facts, bands)

        def values(window: Window) -> np.ndarray:
            return found.values(raster.read(window)[..., order], str(file))

        return values
    plain = facts.dtype == "uint8" and len(facts.bands) == 3 and not misplaced_band(facts.bands, RED_GREEN_BLUE)
    if not facts.windows or not plain:
        return planes_reader(read_picture(file).transpose(2, 0, 1))

    def pixels(window: Window) -> np.ndarray:
        return np.ascontiguousarray(raster.read(window).transpose(2, 0, 1))

    return pixels


@final
class _Rows:
    """Says now and then how many rows of the picture are done."""

    def __init__(self, name: str, height: int, told: Callable[[str], None]) -> None:
        self._name, self._height, self._told = name, height, told
        self._done, self._start = 0, time.monotonic()
        self._last = self._start

    def written(self, rows: int) -> None:
        """So many more are done."""
        self._done += rows
        now = time.monotonic()
        if self._done < self._height and now - self._last >= _QUIET:
            self._last = now
            left = round((now - self._start) / self._done * (self._height - self._done))
            self._told(f"{self._name}: {self._done} of {self._height} rows, {left // 60}:{left % 60:02} left")


@final
class _MapFiles:
    """A sink that writes rows to a file a task; files begin with their first rows, which tell their type."""

    def __init__(
        self,
        stem: Path,
        size: tuple[int, int],
        place: Georeference | None,
        tasks: Mapping[str, Decoding],
        empty: EmptyRows,
        rows: _Rows,
    ) -> None:
        self._rows, self._empty = rows, empty
        self._done = dict.fromkeys(tasks, 0)
        self._stem, self._size, self._place, self._tasks = stem, size, place, tasks
        self._writers: dict[str, MapWriter] = {}

    def __call__(self, task: str, rows: np.ndarray) -> None:
        pixels = rows[..., None] if rows.ndim == 2 else np.moveaxis(rows, 0, -1)
        if task not in self._writers:
            colours = list(self._tasks[task].legend().values())
            painted = bool(colours) and pixels.dtype == np.uint8 and pixels.shape[2] == 1
            self._writers[task] = MapWriter(
                stream_file(self._stem, task),
                self._size,
                pixels.shape[2],
                pixels.dtype,
                self._place,
                nodata=self._tasks[task].nothing_stored,
                palette=colours if painted else None,
            )
        empty = self._empty.of(self._done[task], len(pixels))
        if empty is not None and self._tasks[task].nothing is not None:
            pixels = np.where(empty[..., None], stored_nothing(self._tasks[task]), pixels)
        self._writers[task].write(pixels)
        self._done[task] += len(pixels)
        if task == list(self._tasks)[-1]:
            self._empty.finished(self._done[task])
            self._rows.written(len(pixels))

    def close(self) -> dict[str, Path]:
        """Give all files their names; the first that fails leaves none of those that follow."""
        for writer in self._writers.values():
            writer.close()
        return {task: stream_file(self._stem, task) for task in self._writers}

    def abort(self) -> None:
        """Leave nothing."""
        for writer in self._writers.values():
            writer.abort()
