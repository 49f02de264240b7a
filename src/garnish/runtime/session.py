"""``Session``: predict from an exported folder, as ``Model.predict`` does from a model.

Shape letters: N pictures, C channels of a raw output, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, final

import numpy as np

from garnish.checking.arguments import checked
from garnish.checking.plain_data import integers
from garnish.decodings.decoding import Decoding
from garnish.decodings.prediction import Prediction
from garnish.errors import BundleError, GarnishError, OptionError, shown, suggest
from garnish.files.atomic import present
from garnish.files.given_pictures import PlainPicture, pixels_of
from garnish.files.path_text import given_path
from garnish.predicting.overlapping import Every, Failure, PictureWork, overlapped, without_failures
from garnish.predicting.picture_sources import PictureSource, picture_sources
from garnish.runtime.adapters import Adapters, LoadedBundle
from garnish.runtime.decoded_tasks import task_outputs
from garnish.runtime.graph import Graph
from garnish.runtime.manifest import MANIFEST, ExportFacts, read_manifest


@final
class Session:
    """An exported folder, opened once. Any number of threads may predict at a time, each with another bundle.

    Attributes:
        facts: the folder's manifest.
    """

    facts: ExportFacts

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
        self.folder = present(given_path(folder, "folder", BundleError))
        if not (self.folder / MANIFEST).is_file():
            what = f"it holds no {MANIFEST}" if self.folder.is_dir() else "no such folder"
            raise BundleError(f"{folder}: is not an exported folder ({what}); give one that garnish export wrote")
        self.facts = facts = read_manifest(self.folder)
        self._graph = Graph(self.folder, facts, threads)
        self._adapters: Adapters | None = None
        self._whole: LoadedBundle | None = None
        if facts["form"] == "inputs":
            self._adapters = Adapters(self.folder, self._graph)
        else:
            tasks = task_outputs(facts["tasks"], facts["outputs"], self.folder / MANIFEST)
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
            images: (N, 3, H, W) uint8 RGB.
            bundle: name of the bundle; None: the only one.
            tasks: names; None: all of the bundle.

        Raises:
            OptionError: an unknown bundle or task. DataError: pictures that the graph does not take.
            BundleError: a bundle that is damaged or of another graph; outputs that are not what the manifest says.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or not images.size:
            raise OptionError(f"outputs: images: expected (N, 3, H, W) uint8, got {images.shape} {images.dtype}")
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
        probabilities: bool = False,
    ) -> Prediction[np.ndarray, Decoding]:
        """All maps of one picture at its own size; :meth:`predict_many` takes several.

        Args:
            picture: a file, a PIL image, or a numpy (H, W, 3) or grey (H, W) uint8.
            bundle: name of the bundle, where the graph takes several; None: the only one.
            tasks: names; None: all.
            probabilities: keep those of classes, for :meth:`Prediction.probabilities`.

        Raises:
            DataError: a picture that cannot be read. GarnishError: an output that is not finite, which decoding would
                turn into a map of some class. Otherwise as :meth:`outputs`.
        """
        loaded = self._bundle(bundle)
        _wanted(tasks, loaded)  # before a picture is read
        pixels = pixels_of(picture)
        name = Path(picture).stem if isinstance(picture, str | Path) else "picture"
        raw = self.outputs(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), bundle, tasks)
        file = Path(picture) if isinstance(picture, str | Path) else None
        one = {task: out[0] for task, out in raw.items()}
        return self._made(pixels, one, loaded, name, name if file is None else str(file), file, probabilities)

    @checked
    def predict_many(
        self,
        pictures: object,
        bundle: str | None = None,
        tasks: Sequence[str] | None = None,
        *,
        every: Every = 1,
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
            probabilities: keep those of classes.
            failures: gets the pictures that cannot be predicted, and the iteration goes on; None: the first is raised.

        Raises:
            As :meth:`predict`.
        """
        work = self.picture_work(bundle, tasks, probabilities=probabilities)
        return without_failures(overlapped(picture_sources(pictures, every=every), work, lambda made: made), failures)

    def picture_work(
        self, bundle: str | None, tasks: Sequence[str] | None, *, probabilities: bool
    ) -> PictureWork[dict[str, np.ndarray], Prediction[np.ndarray, Decoding]]:
        """What a session does with pictures, one in a run; see :meth:`predict_many`."""
        loaded = self._bundle(bundle)
        _wanted(tasks, loaded)

        def finish(
            source: PictureSource, pixels: np.ndarray, raw: dict[str, np.ndarray], row: int
        ) -> Prediction[np.ndarray, Decoding]:
            one = {task: out[row] for task, out in raw.items()}
            return self._made(pixels, one, loaded, source.name, source.where, source.file, probabilities)

        return PictureWork(
            read=lambda source: source.pixels(pixels_of),  # type: ignore[arg-type]
            run=lambda pictures: self.outputs(np.stack([p.transpose(2, 0, 1) for p in pictures]), bundle, tasks),
            finish=finish,
            batch=lambda shape: 1,  # on a CPU more are no faster
        )

    def _made(
        self,
        pixels: np.ndarray,
        raw: Mapping[str, np.ndarray],
        loaded: LoadedBundle,
        name: str,
        which: str,
        file: Path | None,
        probabilities: bool,
    ) -> Prediction[np.ndarray, Decoding]:
        """The prediction of raw outputs (C, H, W); raises GarnishError for one that is not finite."""
        for task, out in raw.items():
            if not np.isfinite(out).all():
                raise GarnishError(f"{which}: the output of task {task!r} is not finite; {self._instead()}")
        by = {task: told.decoding for task, told in loaded.tasks.items()}
        maps = {task: by[task].decode(out) for task, out in raw.items()}
        kept = {t: by[t].values(out) for t, out in raw.items() if by[t].are_shares} if probabilities else {}
        return Prediction(pixels, maps, by, name, kept, file)

    def _bundle(self, name: str | None) -> LoadedBundle:
        if self._adapters is not None:
            return self._adapters.get(name)
        assert self._whole is not None, "a graph of the other form holds its tasks"
        if name is not None:
            raise OptionError(
                f"{self.folder}: its graph holds one bundle and takes no other; leave bundle {shown(name)} out"
            )
        return self._whole

    def _instead(self) -> str:
        if self.facts["precision"] == "fp32":
            return "its numbers overflow; check the picture, or the model that was exported"
        return f"its numbers overflow in {self.facts['precision']}; export it with --precision fp32"


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
