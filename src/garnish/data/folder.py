"""Data sets on disk: pictures with label files as a folder or description gives them.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from torchvision import tv_tensors

from garnish.checking.arguments import checked
from garnish.checking.plain_data import Json
from garnish.data.dataset import Dataset, Sample
from garnish.data.description import Description
from garnish.data.description_file import read_description
from garnish.data.elsewhere import words_elsewhere
from garnish.data.guessing.writing import guessed_description
from garnish.data.labels.written import written
from garnish.data.layouts.layout import Layout, published_layout
from garnish.data.picture_key import digest, stamps
from garnish.data.picture_labels import PictureLabels
from garnish.data.picture_reading import read_image
from garnish.data.picture_windows import PictureWindows, picture_windows
from garnish.errors import DataError, OptionError, plural, shown, suggest
from garnish.files.path_text import given_path
from garnish.output import logger
from garnish.pictures.bands import RGB_BANDS, Bands
from garnish.registry import options_of
from garnish.tasks.task import Task

_log = logger(__name__)

#: Keys of a description of which each says where pictures are.
_GUESSED = {"images", "layout", "table", "tasks"}


@checked
def folder(
    source: str | Path | Mapping[str, Json],
    split: str = "train",
    *,
    tasks: Sequence[str] | None = None,
    root: str | Path | None = None,
) -> FolderDataset:
    """Open one split of a data set on disk.

    Args:
        source: a YAML description file, a mapping with the same keys (of ``path`` and no pictures: that folder, with
            the other keys set), or a folder (its ``data.yaml``, else a
            published layout, else the usual folder names).
        split: name of the split.
        tasks: names of the tasks to read; None: all in the description.
        root: folder that a mapping's paths are relative to; None: working directory. In YAML it is the file's folder.

    Raises:
        DataError: missing files, an empty split, or a task for which no picture of the split has a label.
        OptionError: an unknown key, option or task.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (8, 8)).save("a.jpg")
        >>> Image.new("L", (8, 8), 1).save("a.png")
        >>> seg = {"task": "Semantic", "labels": "{name}.png", "classes": ["road", "sky"]}
        >>> data = gn.folder({"images": "*.jpg", "tasks": {"seg": seg}})
        >>> len(data), data[0].targets["seg"].unique().tolist()
        (1, [1])
    """
    return FolderDataset(description_of(source, root), split, tasks)


def description_of(source: str | Path | Mapping[str, Json], root: str | Path | None = None) -> Description:
    """The description of all splits of a data set on disk; arguments and errors are those of :func:`folder`.

    A mapping that says no more of the pictures than ``path`` is that folder, with the other keys set:
    ``{path: pictures, hold_out: 0.2}``.
    """
    if isinstance(source, Mapping):
        base = None if root is None else Path(root)
        if not _GUESSED.isdisjoint(source) or not isinstance(source.get("path"), str):
            return read_description(source, base)
        path = (Path() if base is None else base) / given_path(source["path"], "data: path", DataError)
        return _guessed(path, {key: value for key, value in source.items() if key != "path"})
    path = given_path(source, "data", DataError)
    if path.is_dir() and (path / "data.yaml").is_file():
        path = path / "data.yaml"
    if path.is_dir() or path.suffix.lower() not in (".yaml", ".yml"):
        return _guessed(path, {})
    return read_description(path)


def _guessed(path: Path, options: Mapping[str, Json]) -> Description:
    """The description of a folder that has none, with some keys set by the user."""
    if (layout := published_layout(path)) is not None:
        _log.info("%s: no description; read as {layout: %s}", path, layout)
        return read_description({"layout": layout, **options}, path)
    if path.suffix.lower() == ".parquet" or any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")):
        raise DataError(f"{path}: holds Parquet files; unpack them once: garnish convert {path} --out FOLDER")
    known = guessed_description(path)
    if "splits" in options:  # what the user says of splits may name a val
        known.pop("hold_out", None)
    return read_description({**known, **options}, path)


@final
class FolderDataset(Dataset):
    """One split of a data set on disk; pictures sorted by name.

    Pictures without any label are left out of the split "train". A picture whose label file is missing lacks that task.

    Attributes:
        description: of the data set with all its splits.
        split: name of the split.
    """

    def __init__(self, description: Description, split: str, tasks: Sequence[str] | None = None) -> None:
        known = description.tasks
        for name in tasks or ():
            if name not in known:
                raise OptionError(f"{description.source}: unknown task {shown(name)}{suggest(name, known)}")
        self.description = description
        self.split = split
        self._tasks = {name: entry.task for name, entry in known.items() if tasks is None or name in tasks}
        self._pictures: list[tuple[str, Path]] = []
        self._files: list[tuple[Path, ...]] = []
        self._labels: list[dict[str, Path]] = []
        bare: list[tuple[str, Path]] = []
        for name, path in description.pictures(split):
            sought = {task: description.label_file(task, split, name, path) for task in self._tasks}
            labels = {task: file for task, file in sought.items() if file is not None}
            if description.layout is not None and len(labels) < len(sought):
                task = next(task for task in sought if task not in labels)
                lacking = description.label_places(task, split, name)[0]
                raise DataError(
                    f"{description.source}: tasks.{task}: no file {lacking}, so split {split!r} is not complete; fetch "
                    f"{description.layout.origin}, or name the other tasks under `tasks`"
                )
            if not labels and description.taken_from(split) == "train":
                bare.append((name, path))
                continue
            self._pictures.append((name, path))
            self._files.append(description.picture_files(split, name, path))
            self._labels.append(labels)
        first = (self._pictures or bare)[0]
        counts = self.describe()
        for task, count in counts.items():
            if not count:
                places, reader = description.label_places(task, split, first[0]), known[task].labels
                gave = f"{reader.labels[0]!r} gave e.g. {places[0] if places else 'an empty cell'}"
                told = reader.lacking(places[0], description.word(task, *first)) if places else "; fill the column"
                raise DataError(
                    f"{description.source}: tasks.{task}: no picture of split {split!r} has a label; {gave}{told}"
                )
        self._check_files()
        if description.held_out is not None and split in ("train", "val"):
            _log.warning("%s: %s", description.source, description.held_out.told(split))
        if bare:
            _log.info("%s, %s: %s without any label left out", description.source, split, plural(len(bare), "picture"))
        for task, count in counts.items():
            if count < len(self):
                _log.info(
                    "%s, %s: %d of %d pictures have labels for %s", description.source, split, count, len(self), task
                )

    def _check_files(self) -> None:
        """Have readers look at their files: at all that are shared, else at the first."""
        for task in self._tasks:
            entry = self.description.tasks[task]
            held: dict[Path, list[str]] = {}
            for picture, labels in zip(self._pictures, self._labels, strict=True):
                if task in labels:
                    held.setdefault(labels[task], []).append(self.description.word(task, *picture))
            own = all("{name}" in template for template in entry.labels.labels)
            for file in list(held)[: 1 if own else None]:
                elsewhere = [] if own else words_elsewhere(self.description, task, self.split, file)
                entry.labels.check_file(file, entry.task, [*held[file], *elsewhere])

    @property
    def name(self) -> str:
        """The description file or folder, and the split."""
        return f"{self.description.source} ({self.split})"

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that some picture has a label for, by name."""
        return self._tasks

    @property
    def bands(self) -> Bands:
        """What ``channels`` states; 8-bit RGB where it states nothing."""
        return self.description.bands or RGB_BANDS

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Sample:
        """Picture ``index`` and its targets.

        Raises:
            DataError: a file that cannot be read, a label that differs from its picture in size, values a task rejects.
        """
        image, orientation = read_image(self.picture_files(index), self.bands)
        labels = self.labels(index, (image.shape[-2], image.shape[-1]), orientation)
        targets = {task: labels.target(task) for task in labels.files}
        for task, target in targets.items():
            self._tasks[task].check_target(target, str(labels.files[task]))
        return Sample(image=image, targets=targets, name=str(self.picture_file(index)))

    def image(self, index: int) -> tv_tensors.Image:
        """Picture ``index`` alone; its labels are not read."""
        return read_image(self.picture_files(index), self.bands)[0]

    def windows(self, index: int) -> PictureWindows | None:
        """Picture ``index`` for reading by windows, where its files and those of its labels allow that."""
        if self.description.layout is not None:
            return None
        return picture_windows(self.picture_files(index), self.bands, self._labels[index], self.description.tasks)

    @property
    def checks_labels(self) -> bool:
        """True: every label is checked when it is read; errors name its file."""
        return True

    def key(self, index: int) -> str | None:
        """Digest of the reading options and of the names, sizes and modification times of the picture's files."""
        pictures, labels = self.picture_files(index), self._labels[index]
        known, layout = self.description.tasks, self.description.layout
        reading = [(t, _apart(known[t].task, ("weight",)), written(known[t].labels, known[t].task)) for t in labels]
        try:
            read = [file for task in labels for file in self._read_for(index, task)]
            files = stamps([*pictures, *read], self.description.root)
        except (OSError, DataError):  # reading the picture raises an error that names the missing file
            return None
        told = () if self.description.bands is None else (self.bands,)
        return digest("folder", reading, None if layout is None else _apart(layout, ("path", "tasks")), files, *told)

    def content(self, index: int) -> Mapping[str, str]:
        """Names relative to the root and sizes in bytes of the picture and its label files, and how they are read."""
        pictures, labels = self.picture_files(index), self._labels[index]
        root, known = self.description.root, self.description.tasks
        read = {task: self._read_for(index, task) for task in labels}

        def name(file: Path) -> str:
            return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()

        def size(file: Path) -> int | None:
            return file.stat().st_size if file.is_file() else None

        told = {} if self.description.bands is None else {"bands of pictures": repr(self.bands)}
        return {
            "names of pictures": ", ".join(map(name, pictures)),
            "sizes of picture files": ", ".join(str(size(file)) for file in pictures),
            "names of label files": str({task: ", ".join(map(name, files)) for task, files in read.items()}),
            "sizes of label files": str([size(file) for files in read.values() for file in files]),
            "ways of reading labels": f"[{', '.join(written(known[t].labels, known[t].task) for t in labels)}]",
            **told,
        }

    def _read_for(self, index: int, task: str) -> tuple[Path, ...]:
        """All files that the label of picture ``index`` is read from."""
        word = self.description.word(task, *self._pictures[index])
        return self.description.tasks[task].labels.files(self._labels[index][task], word)

    def labels(self, index: int, size: tuple[int, int] | None, orientation: int) -> PictureLabels:
        """The labels of picture ``index``, read on demand.

        Args:
            index: of the picture.
            size: (H, W) of the picture; None if it cannot be read.
            orientation: EXIF orientation of the picture.
        """
        name, file = self._pictures[index]
        return PictureLabels(self.description, name, file, self._labels[index], size, orientation)

    def picture_name(self, index: int) -> str:
        """Name of picture ``index``."""
        return self._pictures[index][0]

    def picture_file(self, index: int) -> Path:
        """File of picture ``index``; of several files that of its first band."""
        return self._pictures[index][1]

    def picture_files(self, index: int) -> tuple[Path, ...]:
        """All files of picture ``index``: one, or one a band."""
        return self._files[index]

    def label_files(self, index: int) -> Mapping[str, Path]:
        """Task → label file of picture ``index``; tasks it has no label for are left out."""
        return self._labels[index]

    def describe(self) -> dict[str, int]:
        """Task → number of pictures that have a label for it."""
        return {task: sum(task in labels for labels in self._labels) for task in self._tasks}


def _apart(spec: Task | Layout, left_out: Sequence[str]) -> list[Json]:
    """Class name and options of a task or a layout, without the options in ``left_out``."""
    return [type(spec).__name__, {name: v for name, v in options_of(spec).items() if name not in left_out}]
