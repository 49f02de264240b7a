"""``Session``: predict from an exported folder, as ``Model.predict`` does from a model.

Shape letters: N pictures, C channels of a raw output, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, final

import numpy as np

from garnish.checking.arguments import checked
from garnish.checking.plain_data import integers
from garnish.decodings.decoding import Decoding
from garnish.decodings.prediction import Prediction
from garnish.errors import BundleError, GarnishError, OptionError, shown
from garnish.files.atomic import read_present
from garnish.files.given_pictures import PlainPicture
from garnish.files.path_text import given_path
from garnish.pictures.bands import Bands
from garnish.predicting.overlapping import Every, Failure, overlapped, without_failures
from garnish.predicting.picture_sources import picture_sources
from garnish.runtime.adapters import Adapters, LoadedBundle, wanted_tasks
from garnish.runtime.asked_graph import AskedGraph
from garnish.runtime.decoded_tasks import task_outputs
from garnish.runtime.graph import open_graph
from garnish.runtime.installed import check_installed
from garnish.runtime.manifest import MANIFEST, ExportFacts, bands_of
from garnish.tiles.passes import Runner
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
        check_installed()
        place = given_path(folder, "folder", BundleError)
        self.folder = place.resolve()
        self.facts, self._graph = read_present(self.folder, lambda there: open_graph(there, place, threads))
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
        return {name: task.decoding for name, task in self.bundle(bundle).tasks.items()}

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
        return self.outputs_of(self.bundle(bundle), images, tasks)

    def outputs_of(
        self, loaded: LoadedBundle, images: np.ndarray, tasks: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """:meth:`outputs` of a bundle that :meth:`bundle` gave, whatever its name stands for now."""
        kind, count = "uint8" if self.bands.is_rgb else self.facts["image"]["dtype"], len(self.bands.names)
        if images.dtype != np.dtype(kind) or images.ndim != 4 or images.shape[1] != count or not images.size:
            raise OptionError(f"outputs: images: expected (N, {count}, H, W) {kind}, got {images.shape} {images.dtype}")
        wanted = {name: loaded.tasks[name] for name in wanted_tasks(tasks, loaded)}
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
        probabilities: bool = False,
    ) -> Prediction[np.ndarray, Decoding]:
        """All maps of one picture at its own size; :meth:`predict_many` takes several.

        Args:
            picture: a file, a PIL image, or a numpy (H, W, 3) or grey (H, W) uint8. Of other bands a file, or a
                numpy (H, W, C) of the numbers of one.
            bundle: name of the bundle, where the graph takes several; None: the only one.
            tasks: names; None: all.
            tile: side of overlapping windows that it is run in; "auto": 1024 for pictures of more than 2048·2048
                pixels; None: always one pass.
            overlap: pixels that windows share; None: 3/32 of a window, in whole multiples of 32.
            flip: average with a pass of the mirrored picture.
            probabilities: keep those of classes, for :meth:`Prediction.probabilities`.

        Raises:
            DataError: a picture that cannot be read. GarnishError: an output that is not finite, which decoding would
                turn into a map of some class. Otherwise as :meth:`outputs`.
        """
        asked = self.asked(bundle, tasks, Tiling(tile=tile, overlap=overlap, flip=flip), probabilities=probabilities)
        file = Path(picture) if isinstance(picture, str | Path) else None
        name = "picture" if file is None else file.stem
        which = name if file is None else str(picture)
        taken = asked.read(picture, which, file)
        return asked.finish(taken, asked.run(taken, which), name, file)

    @checked
    def predict_many(
        self,
        pictures: object,
        bundle: str | None = None,
        tasks: Sequence[str] | None = None,
        *,
        every: Every = 1,
        tile: Tile | None = "auto",
        overlap: Overlap | None = None,
        flip: bool = False,
        probabilities: bool = False,
        failures: list[Failure] | None = None,
    ) -> Iterator[Prediction[np.ndarray, Decoding]]:
        """Predict pictures one after the other, in their order; reading, runs and decoding overlap.

        Args:
            pictures: a file, a folder (all below it), a pattern, a video (which needs PyAV), what :meth:`predict`
                takes, arrays of four axes, or an iterable of any of these, of which eight are read ahead at most.
            bundle: as for :meth:`predict`.
            tasks: names; None: all.
            every: of a video, each so-manieth frame.
            tile: as for :meth:`predict`.
            overlap: likewise.
            flip: likewise.
            probabilities: keep those of classes.
            failures: gets the pictures that cannot be predicted, and the iteration goes on; None: the first is raised.

        Raises:
            As :meth:`predict`.
        """
        tiling = Tiling(tile=tile, overlap=overlap, flip=flip)
        work = self.asked(bundle, tasks, tiling, probabilities=probabilities).work()
        return without_failures(overlapped(picture_sources(pictures, every=every), work, lambda made: made), failures)

    def asked(
        self, bundle: str | None, tasks: Sequence[str] | None, tiling: Tiling, *, probabilities: bool
    ) -> AskedGraph:
        """What is asked of the graph about pictures; raises as :meth:`predict`, before one is read."""
        loaded = self.bundle(bundle)
        wanted = wanted_tasks(tasks, loaded)
        known = {task: told.decoding for task, told in loaded.tasks.items()}
        return AskedGraph(
            bands=self.bands,
            kind=self.facts["image"]["dtype"],
            runner=lambda which: self.runner(bundle, wanted, which),
            decodings={task: known[task] for task in wanted},
            known=known,
            tiling=tiling,
            step=STEP,
            probabilities=probabilities,
        )

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

        if not self.bands.is_rgb and self.facts["image"]["dtype"] != "float32":
            raise OptionError(
                f"{file}: this graph takes other bands as files hold them, which are not written row by row;"
                " use --tile none, or export it with --input float"
            )
        loaded, (file, stem) = self.bundle(bundle), (Path(file), Path(stem))
        decodings = {task: loaded.tasks[task].decoding for task in wanted_tasks(tasks, loaded)}
        run = self.runner(bundle, list(decodings), str(file))
        tiling = Tiling(tile=tile, overlap=overlap, flip=flip)
        stem.parent.mkdir(parents=True, exist_ok=True)
        told = told or (lambda line: None)
        return stream_maps(file, stem, decodings, run, bands=self.bands, step=STEP, tiling=tiling, told=told)

    def bundle(self, name: str | None = None) -> LoadedBundle:
        """A bundle in memory, read where it is not; None: the only one. Raises as :meth:`outputs`."""
        if self._adapters is not None:
            return self._adapters.get(name)
        assert self._whole is not None, "a graph of the other form holds its tasks"
        if name is not None:
            raise OptionError(
                f"{self.folder}: its graph holds one bundle and takes no other; leave bundle {shown(name)} out"
            )
        return self._whole

    def drop(self, name: str) -> None:
        """Give the memory of a bundle back; it is read again when it is asked for."""
        if self._adapters is not None:
            self._adapters.drop(name)

    def _instead(self) -> str:
        if self.facts["precision"] == "fp32":
            return "its numbers overflow; check the picture, or the model that was exported"
        return f"its numbers overflow in {self.facts['precision']}; export it with --precision fp32"
