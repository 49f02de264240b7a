"""``Prediction``: the decoded maps of one picture, to index, paint, measure or write to files.

A model's maps are tensors, which its tasks paint and write; those of an exported model are arrays, for its decodings.

Shape letters: K classes, H W pixels of the picture.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypedDict, TypeVar

import numpy as np
from PIL import Image

from garnish.checking.arguments import checked
from garnish.checking.plain_data import Json, reals
from garnish.decodings.coco import coco_of
from garnish.decodings.decoding import Decoding
from garnish.decodings.file_kinds import DEFAULT, OPACITY, chosen_kinds
from garnish.decodings.map_file import write_tiff
from garnish.decodings.written import has_shares, shares_file
from garnish.drawing.map_files import picture_bytes, write_map, write_png
from garnish.drawing.map_sheet import MapLegend, map_sheet
from garnish.drawing.overlay import blended
from garnish.errors import OptionError, one_line, shown
from garnish.pictures.raster import Georeference


class Showing(Protocol):
    """What turns decoded maps of one kind into colours and files: a task, or its decoding."""

    def paint(self, decoded: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""

    def write(self, decoded: Any, path: Path) -> Path:
        """Write a map to ``path`` plus its suffix; returns the file."""

    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Label names and their colours."""


class Area(TypedDict):
    """How much of a picture one class takes."""

    pixels: int
    share: float  # of all pixels of the picture, 0 … 1


Map = TypeVar("Map")
By = TypeVar("By", bound=Showing)
Opacity = Annotated[float, reals(0, 1)]

#: Longer side of a cell of the sheet that notebooks show.
_NOTEBOOK_CELL = 240


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Generic[Map, By]):
    """All maps of one picture: ``prediction["depth"]`` is one, ``for task in prediction`` names them all.

    Attributes:
        picture: (H, W, 3) uint8.
        maps: task → decoded map at the picture's own size: (H, W) uint8 ids, (H, W) float32 metres or probabilities,
            (3, H, W) float32 unit normals.
        tasks: task name → what paints and writes its map.
        name: the picture's file name without suffix.
        values: task → (K, H, W) float32 probabilities before they became a map, where they were asked for.
        confidence: task → (H, W) float32 probability of the class chosen, where a server was asked for it.
        source: the file that it was read from; None: it was no file.
        place: where the picture lies on the ground; None: its file does not say.
    """

    picture: np.ndarray
    maps: Mapping[str, Map]
    tasks: Mapping[str, By]
    name: str = "picture"
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: Path | None = None
    place: Georeference | None = None
    confidence: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, task: str) -> Map:
        if not isinstance(task, str) or task not in self.maps:
            raise OptionError(f"no map of task {shown(task, 40)}; there are {', '.join(self.maps)}")
        return self.maps[task]

    def __iter__(self) -> Iterator[str]:
        """The names of the tasks that it has maps of, in their order; ``prediction[task]`` is a map."""
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __contains__(self, task: object) -> bool:
        return task in self.maps

    def keys(self) -> KeysView[str]:
        """The names of the tasks; so ``dict(prediction)`` has the maps."""
        return self.maps.keys()

    def items(self) -> ItemsView[str, Map]:
        """(task, map) of each."""
        return self.maps.items()

    def __repr__(self) -> str:
        height, width = self.picture.shape[:2]
        return one_line(f"Prediction({self.name!r}, {width}x{height}: {', '.join(self.maps)})", 200)

    def _repr_html_(self) -> str:
        """The sheet, for notebooks: one picture inside the page, and nothing that is fetched."""
        data = base64.b64encode(picture_bytes(self._sheet(_NOTEBOOK_CELL), "JPEG")).decode("ascii")
        return f'<div>{html.escape(repr(self))}<br><img src="data:image/jpeg;base64,{data}"></div>'

    def numpy(self) -> dict[str, np.ndarray]:
        """The maps as arrays, which share the memory of the tensors that they were."""
        return {task: np.asarray(decoded) for task, decoded in self.maps.items()}

    def painted(self) -> dict[str, np.ndarray]:
        """Each map in colour: task → (H, W, 3) uint8."""
        return {name: self.tasks[name].paint(decoded) for name, decoded in self.maps.items()}

    @checked
    def overlay(self, task: str, opacity: Opacity = OPACITY) -> np.ndarray:
        """One map over the picture, (H, W, 3) uint8; the picture alone where there is no label.

        What is probable (edges, saliency) is one colour, as dense as it is probable.

        Args:
            task: its name.
            opacity: how much of the picture is hidden where the map covers it wholly, 0 … 1.
        """
        decoded, decoding = self[task], self._decoding(task)
        if decoding is None:
            colours, cover = self.tasks[task].paint(decoded), np.ones(self.picture.shape[:2], np.float32)
        else:
            array = np.asarray(decoded)
            colours, cover = decoding.over_colour(array), decoding.cover(array)
        return blended(self.picture, colours, cover * np.float32(opacity))

    @checked
    def probabilities(self, task: str) -> np.ndarray:
        """(K, H, W) float32: the probability of each class at each pixel; (1, H, W) of yes for edges and saliency.

        Raises:
            OptionError: the task has none (depth, normals), or they were not kept: K numbers a pixel are many, so
                ``predict`` keeps them if told so.
        """
        decoded, decoding = self[task], self._decoding(task)
        if decoding is None or not decoding.are_shares:
            raise OptionError(f"probabilities: task {shown(task, 40)} has none; its map is a measure of each pixel")
        if task in self.values:
            return self.values[task]
        if decoding.channels > 1:
            raise OptionError(
                f"probabilities: those of task {shown(task, 40)} were not kept; predict with probabilities=True"
            )
        return np.asarray(decoded, np.float32)[None]

    @checked
    def areas(self, task: str) -> dict[str, Area]:
        """Class name → how many pixels it has, and which share of the picture; classes that it lacks have 0.

        For edges and saliency ``yes``, where the probability is at least 0.5.
        """
        found = self._class_ids([self._known(task)])
        if not found:
            raise OptionError(f"areas: task {shown(task, 40)} has no classes")
        ids, names = found[task]
        counts = np.bincount(ids.ravel(), minlength=256)[: len(names)].tolist()
        return {name: Area(pixels=n, share=n / ids.size) for name, n in zip(names, counts, strict=True)}

    @checked
    def to_coco(self, tasks: Sequence[str] | None = None) -> dict[str, Json]:
        """Regions as polygons, as COCO's JSON has them: see :func:`garnish.decodings.coco.coco_of`.

        Args:
            tasks: names; None: all that have classes (edges and saliency: ``yes``, from 0.5).

        Raises:
            OptionError: an unknown task, one without classes; or no task of the picture has any.
        """
        found = self._class_ids(list(self.maps) if tasks is None else [self._known(task) for task in tasks])
        if lacking := [task for task in tasks or () if task not in found]:
            raise OptionError(f"to_coco: task {shown(lacking[0], 40)} has no classes to draw polygons of")
        if not found:
            raise OptionError(f"to_coco: none of {', '.join(self.maps)} has classes to draw polygons of")
        name = self.name if self.source is None else self.source.name
        return coco_of(found, name, (self.picture.shape[0], self.picture.shape[1]))

    @checked
    def save(self, path: str | Path) -> Path:
        """Write one sheet (the picture, every map, a legend for each task) as PNG or JPEG; returns the file."""
        path = Path(path)
        kind = Image.registered_extensions().get(path.suffix.lower())
        if kind is None:
            raise OptionError(f"{path}: no picture format ends in {path.suffix!r}; write .png or .jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_map(picture_bytes(self._sheet(), kind), path)

    @checked
    def write(self, folder: str | Path, what: Sequence[str] = DEFAULT, *, opacity: Opacity = OPACITY) -> list[Path]:
        """Write the files of one picture, each whole or not at all; returns them.

        Args:
            folder: where to; it is made.
            what: kinds of files (:data:`garnish.decodings.file_kinds.KINDS`): ``maps``, each in its task's own format,
                ``NAME_TASK.png`` and so on; ``overlays``; ``probabilities``, which must have been kept; ``coco``;
                ``sheet``.
            opacity: of overlays.

        Raises:
            OptionError: an unknown kind; probabilities that were not kept; polygons where no task has classes.
            DataError: no space, no permission.
        """
        kinds = chosen_kinds(what)
        here = Path(folder) / self.name
        here.parent.mkdir(parents=True, exist_ok=True)

        def at(stem: str) -> Path:
            return here.with_name(f"{here.name}_{stem}")

        files: list[Path] = []
        if "maps" in kinds:
            files += [self.tasks[task].write(decoded, at(task)) for task, decoded in self.maps.items()]
        if "maps" in kinds and self.place is not None:
            files += [self._write_ground(task, at(f"{task}.tif"), self.place) for task in self.maps]
        if "overlays" in kinds:
            files += [write_png(self.overlay(task, opacity), at(f"{task}_overlay.png")) for task in self.maps]
        if "probabilities" in kinds:
            for task in (task for task in self.maps if has_shares(self.tasks[task])):
                data = shares_file(self.probabilities(task), tuple(self.tasks[task].legend()))
                files.append(write_map(data, at(f"{task}_probabilities.npz")))
        if "coco" in kinds:
            files.append(write_map(json.dumps(self.to_coco(), allow_nan=False).encode(), at("coco.json")))
        if "sheet" in kinds:
            files.append(self.save(at("sheet.png")))
        return files

    def _write_ground(self, task: str, file: Path, place: Georeference) -> Path:
        """A GeoTIFF of what the map's file holds."""
        decoding, decoded = self._decoding(task), np.asarray(self.maps[task])
        stored = np.moveaxis(decoded, 0, -1) if decoding is None and decoded.ndim == 3 else decoded
        stored = stored if decoding is None else decoding.stored(decoded)
        palette = tuple(self.tasks[task].legend().values()) if decoding is None else decoding.palette()
        write_tiff(file, stored, palette, None if decoding is None else decoding.nothing_stored, place)
        return file

    def _known(self, task: str) -> str:
        self[task]
        return task

    def _decoding(self, task: str) -> Decoding | None:
        """What the map of a task means; None for a task of others that has no decoding."""
        by = self.tasks[task]
        found = by if isinstance(by, Decoding) else getattr(by, "decoding", None)
        return found if isinstance(found, Decoding) else None

    def _class_ids(self, tasks: Sequence[str]) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
        """Of the tasks that have classes: (H, W) uint8 ids and the name of each."""
        found = {}
        for task in tasks:
            decoding = self._decoding(task)
            classes = None if decoding is None else decoding.class_ids(np.asarray(self.maps[task]))
            if classes is not None:
                found[task] = classes
        return found

    def _sheet(self, largest: int | None = None) -> Image.Image:
        legends = {task: self._legend(task) for task in self.maps}
        cells = [("picture", self.picture), *self.painted().items()]
        return map_sheet(cells, legends) if largest is None else map_sheet(cells, legends, largest=largest)

    def _legend(self, task: str) -> MapLegend:
        """Of classes those that the map holds, the largest first, with their share of the picture."""
        colours, decoding = self.tasks[task].legend(), self._decoding(task)
        if decoding is None:
            return MapLegend(colours)
        if colours and decoding.class_ids(np.asarray(self.maps[task])) is not None:
            areas = {name: area for name, area in self.areas(task).items() if area["pixels"] and name in colours}
            ordered = sorted(areas, key=lambda name: -areas[name]["pixels"])
            return MapLegend({f"{name} {_percent(areas[name]['share'])}": colours[name] for name in ordered})
        return MapLegend(colours, decoding.scale())


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "<1%"
