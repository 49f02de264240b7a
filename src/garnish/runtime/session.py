"""``Session``: predict from an exported folder, as ``Model.predict`` does from a model.

Shape letters: N pictures, C channels of a raw output, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, final

import numpy as np

from garnish.checking.arguments import checked
from garnish.checking.plain_data import integers
from garnish.decodings.decoding import Decoding
from garnish.decodings.prediction import Prediction
from garnish.errors import BundleError, DataError, GarnishError, OptionError, shown, suggest
from garnish.files.atomic import read_present
from garnish.files.given_pictures import PlainPicture, pixels_of
from garnish.files.path_text import given_path
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import in_colour, stored_numbers
from garnish.runtime.adapters import Adapters, LoadedBundle
from garnish.runtime.decoded_tasks import task_outputs
from garnish.runtime.graph import Graph
from garnish.runtime.manifest import MANIFEST, ExportFacts, bands_of, read_manifest
from garnish.tiles.blending import FinishedMaps
from garnish.tiles.passes import Runner, WholeMaps, planes_reader, run_windows
from garnish.tiles.tiling import Overlap, Tile, Tiling

#: Windows begin at multiples of this many pixels: the stride of most trunks' coarsest map, which manifests do not say.
STEP = 32


@final
class Session:
    """An exported folder, opened once. Any number of threads may predict at a time, each with another bundle.

    Attributes:
        facts: the folder's manifest.
        bands: of the pictures that it predicts from.
    """

    facts: ExportFacts
    bands: Bands

    @checked
    def __init__(
        self, folder: str | os.PathLike[str], *, threads: Annotated[int, integers(1, 1024)] | None = None
    ) -> None:
        """Open a folder that ``garnish export`` wrote.

        Args:
            folder: its path.
            threads: that one prediction uses; None: a thread a core.

        Raises:
            BundleError: not such a folder, damaged, or what its manifest says is not so.
        """
        _check_installed()
        place = given_path(folder, "folder", BundleError)
        self.folder = place.resolve()
        self.facts, self._graph = read_present(self.folder, lambda there: _opened(there, place, threads))
        self.bands = bands_of(self.facts, self.folder / MANIFEST)
        self._adapters: Adapters | None = None
        self._whole: LoadedBundle | None = None
        if self.facts["form"] == "inputs":
            self._adapters = Adapters(self.folder, self._graph)
        else:
            tasks = task_outputs(self.facts["tasks"], self.facts["outputs"], self.folder / MANIFEST)
            self._whole = LoadedBundle(tasks)

    @property
    def bundles(self) -> tuple[str, ...]:
        """Names of the bundles that the graph takes, as they lie beside it now; none where one is inside the graph."""
        return () if self._adapters is None else self._adapters.names()

    @checked
    def tasks(self, bundle: str | None = None) -> Mapping[str, Decoding]:
        """The tasks of a bundle: name → what its output means. Raises as :meth:`predict`."""
        return {name: task.decoding for name, task in self._bundle(bundle).tasks.items()}

    @checked
    def outputs(
        self, images: np.ndarray, bundle: str | None = None, tasks: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Raw outputs of some pictures of one size: task → (N, C, H, W) float32.

        Args:
            images: (N, 3, H, W) uint8 RGB. Of other bands (N, C, H, W) of the type that the graph takes: uint8 or
                uint16 as files hold them, or float32 as ``Bands.values`` gives them.
            bundle: name of the bundle; None: the only one.
            tasks: names; None: all of the bundle.

        Raises:
            OptionError: an unknown bundle or task. DataError: pictures that the graph does not take.
            BundleError: a bundle that is damaged or of another graph; outputs that are not what the manifest says.
        """
        kind, count = "uint8" if self.bands.is_rgb else self.facts["image"]["dtype"], len(self.bands.names)
        if images.dtype != np.dtype(kind) or images.ndim != 4 or images.shape[1] != count or not images.size:
            raise OptionError(f"outputs: images: expected (N, {count}, H, W) {kind}, got {images.shape} {images.dtype}")
        loaded = self._bundle(bundle)
        wanted = {name: loaded.tasks[name] for name in _wanted(tasks, loaded)}
        raw = self._graph.run(images, [task.output for task in wanted.values()], loaded.adapter)
        found = {}
        for name, task in wanted.items():
            out = raw[task.output]
            expected = (len(images), task.decoding.channels, *images.shape[2:])
            if out.shape != expected or out.dtype != np.float32:
                raise BundleError(
                    f"{self._graph.file}: output {shown(task.output)} is {out.shape} {out.dtype}, expected {expected}"
                    " float32; export it again"
                )
            found[name] = out
        return found

    @checked
    def predict(
        self,
        picture: PlainPicture,
        bundle: str | None = None,
        tasks: Sequence[str] | None = None,
        *,
        tile: Tile | None = "auto",
        overlap: Overlap | None = None,
        flip: bool = False,
    ) -> Prediction[np.ndarray, Decoding]:
        """All maps of one picture at its own size; call it once for each picture.

        Args:
            picture: a file, a PIL image, or a numpy (H, W, 3) or grey (H, W) uint8. Of other bands a file, or a
                numpy (H, W, C) of the numbers of one.
            bundle: name of the bundle, where the graph takes several; None: the only one.
            tasks: names; None: all.
            tile: side of overlapping windows that it is run in; "auto": 1024 for pictures of more than 2048·2048
                pixels; None: always one pass.
            overlap: pixels that windows share; None: 3/32 of a window, in whole multiples of 32.
            flip: average with a pass of the mirrored picture.

        Raises:
            DataError: a picture that cannot be read. GarnishError: an output that is not finite, which decoding would
                turn into a map of some class. Otherwise as :meth:`outputs`.
        """
        loaded = self._bundle(bundle)
        wanted = _wanted(tasks, loaded)  # before a picture is read
        tiling = Tiling(tile=tile, overlap=overlap, flip=flip)
        name = Path(picture).stem if isinstance(picture, str | Path) else "picture"
        which = str(picture) if isinstance(picture, str | Path) else name
        pixels, image = self._read(picture, which)
        run, plan = self.runner(bundle, wanted, which), tiling.plan((pixels.shape[0], pixels.shape[1]), STEP)
        if plan.count > 1 or flip:
            whole = WholeMaps(plan.size[0])
            made = {task: (loaded.tasks[task].decoding, FinishedMaps(loaded.tasks[task].decoding)) for task in wanted}
            run_windows(plan, planes_reader(image), run, made, whole, flip=flip)
            maps = whole.maps
        else:
            raw = run(np.ascontiguousarray(image))
            maps = {task: loaded.tasks[task].decoding.decode(out) for task, out in raw.items()}
        return Prediction(pixels, maps, {task: told.decoding for task, told in loaded.tasks.items()}, name)

    def runner(self, bundle: str | None, tasks: Sequence[str] | None, which: str) -> Runner:
        """What runs one window of a picture, as :meth:`outputs` takes them: task → (C, h, w) float32.

        It raises GarnishError, naming ``which`` picture, for an output that is not finite; else as :meth:`outputs`.
        """

        def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
            raw = self.outputs(pixels[None], bundle, tasks)
            for task, out in raw.items():
                if not np.isfinite(out).all():
                    raise GarnishError(f"{which}: the output of task {task!r} is not finite; {self._instead()}")
            return {task: raw.pop(task)[0] for task in list(raw)}

        return run

    @checked
    def stream(
        self,
        file: str | Path,
        stem: str | Path,
        bundle: str | None = None,
        tasks: Sequence[str] | None = None,
        *,
        tile: Tile = "auto",
        overlap: Overlap | None = None,
        flip: bool = False,
        told: Callable[[str], None] | None = None,
    ) -> dict[str, Path]:
        """Write the maps of a picture of any size as tiled TIFF, ``STEM_TASK.tif``, never holding it whole.

        Args:
            file: the picture.
            stem: folder and beginning of the names.
            bundle: as for :meth:`predict`.
            tasks: likewise.
            tile: likewise.
            overlap: likewise.
            flip: likewise.
            told: takes a line that says how it is run.

        Returns:
            Task → file.

        Raises:
            DataError: a picture that cannot be read, a file that cannot be written. Otherwise as :meth:`predict`.
        """
        from garnish.tiles.streaming import stream_maps

        loaded, (file, stem) = self._bundle(bundle), (Path(file), Path(stem))
        decodings = {task: loaded.tasks[task].decoding for task in _wanted(tasks, loaded)}
        if not self.bands.is_rgb and (kind := self.facts["image"]["dtype"]) != "float32":
            raise OptionError(
                f"{file}: is too large to be held, and this graph takes {kind}; export it with --input float"
            )
        run = self.runner(bundle, list(decodings), str(file))
        tiling = Tiling(tile=tile, overlap=overlap, flip=flip)
        stem.parent.mkdir(parents=True, exist_ok=True)
        told = told or (lambda line: None)
        return stream_maps(file, stem, decodings, run, bands=self.bands, step=STEP, tiling=tiling, told=told)

    def _bundle(self, name: str | None) -> LoadedBundle:
        if self._adapters is not None:
            return self._adapters.get(name)
        assert self._whole is not None, "a graph of the other form holds its tasks"
        if name is not None:
            raise OptionError(
                f"{self.folder}: its graph holds one bundle and takes no other; leave bundle {shown(name)} out"
            )
        return self._whole

    def _read(self, picture: PlainPicture, where: str) -> tuple[np.ndarray, np.ndarray]:
        """A picture to be looked at, (H, W, 3) uint8, and as the graph takes it, (C, H, W)."""
        if self.bands.is_rgb:
            pixels = pixels_of(picture)
            return pixels, pixels.transpose(2, 0, 1)
        stored, bands = stored_numbers(picture, self.bands, where)
        values = bands.values(stored, where)
        kind = self.facts["image"]["dtype"]
        if kind != "float32" and stored.dtype != np.dtype(kind):
            raise DataError(f"{where}: holds {stored.dtype}, and this graph takes {kind}; export it with --input float")
        if kind != "float32" and bands != self.bands:
            raise DataError(
                f"{where}: says that {bands.nodata:g} is no data, which this graph does not know; export it with"
                " --input float"
            )
        return in_colour(values, self.bands), values if kind == "float32" else stored.transpose(2, 0, 1)

    def _instead(self) -> str:
        if self.facts["precision"] == "fp32":
            return "its numbers overflow; check the picture, or the model that was exported"
        return f"its numbers overflow in {self.facts['precision']}; export it with --precision fp32"


def _opened(folder: Path, given: Path, threads: int | None) -> tuple[ExportFacts, Graph]:
    """The manifest and the graph of a folder, which messages name as it was given."""
    if not (folder / MANIFEST).is_file():
        what = f"it holds no {MANIFEST}" if folder.is_dir() else "no such folder"
        bundle = (folder / "bundle.json").is_file()
        do = "it is a bundle: garnish export makes one of it" if bundle else "give one that garnish export wrote"
        raise BundleError(f"{given}: is not an exported folder ({what}); {do}")
    facts = read_manifest(folder)
    return facts, Graph(folder, facts, threads)


def _check_installed() -> None:
    """Raise GarnishError where two distributions of different versions have written over each other's files."""
    found = {}
    for name in ("garnish", "garnish-runtime"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    if len(set(found.values())) > 1:
        told = " and ".join(f"{name} {number}" for name, number in found.items())
        raise GarnishError(f"{told} are installed over each other; uninstall both, then install one of them")


def _wanted(tasks: Sequence[str] | None, loaded: LoadedBundle) -> list[str]:
    """Names of tasks, in the bundle's order; raises OptionError for an unknown one, or none."""
    if tasks is None:
        return list(loaded.tasks)
    if not tasks:
        raise OptionError("tasks is an empty list; name some, or leave it out for all")
    for name in tasks:
        if name not in loaded.tasks:
            raise OptionError(f"unknown task {shown(name)}{suggest(name, loaded.tasks)}")
    return [name for name in loaded.tasks if name in tasks]
