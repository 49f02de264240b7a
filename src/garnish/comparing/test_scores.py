"""Measuring a run's bundle on the test set, and painting its predictions there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from garnish.bundles.bundle import load
from garnish.bundles.checkpoint import open_state, save_state
from garnish.comparing.analysis.statistics import Floats, Integers, headline_draws
from garnish.comparing.analysis.totals_by_picture import PictureTotals, evaluate_by_picture, load_totals, save_totals
from garnish.comparing.arms import ArmRun
from garnish.comparing.conditions import Conditions
from garnish.comparing.keys import key_of
from garnish.comparing.outcomes import Measured, odd_measurement
from garnish.comparing.store import has_picture, keep_json, keep_picture, kept
from garnish.data.augment import resize_sample
from garnish.data.dataset import Sample
from garnish.drawing.map_files import picture_bytes
from garnish.errors import BundleError
from garnish.model.model import Model
from garnish.output import logger
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import in_colour
from garnish.training.processes import make_fabric

_log = logger(__name__)

#: Longer side of painted maps, in pixels.
CELL_PX = 320


def open_bundle(conditions: Conditions, run: ArmRun) -> Model:
    """Load the bundle of a finished run's best step."""
    weights = conditions.recipe.backbone.weights if conditions.recipe.backbone is not None else None
    trunk = conditions.random_trunk(run)
    given = str(weights) if trunk is None and isinstance(weights, str) else None
    model = load(conditions.store.bundle(conditions.key(run)), backbone=trunk, weights=given)
    return model.to(make_fabric(conditions.training).device)


def measured(conditions: Conditions, run: ArmRun, say: Callable[[str], None] | None = None) -> Measured:
    """Measure a run's bundle on the test set, and store the metrics and each picture's totals; read them if stored.

    Raises:
        DataError: a picture that cannot be read. BundleError, OSError: nothing can be written.
    """
    place = conditions.store.measure(conditions.measure_key(run))
    with conditions.store.lock(conditions.measure_key(run), say, f"{run}, measuring"):
        known = known_measure(conditions, run)
        if known is not None:
            return known
        test = conditions.parts.test(run.tasks)
        training = conditions.training
        metrics, totals = evaluate_by_picture(
            open_bundle(conditions, run), test, size=training.eval_size, batch_size=training.eval_batch_size
        )
        save_totals(place.with_suffix(".safetensors"), totals)
        keep_json(place.with_suffix(".json"), Measured(metrics=metrics, num_pictures=len(test)))
        found = known_measure(conditions, run)
        assert found is not None, "it was just written"
        return found


def known_measure(conditions: Conditions, run: ArmRun) -> Measured | None:
    """The stored result of :func:`measured`; None if there is none."""
    place = conditions.store.measure(conditions.measure_key(run))
    totals = place.with_suffix(".safetensors")
    if not totals.is_file():
        return None
    try:
        totals_of(conditions, run)
    except BundleError as error:
        _log.warning("%s (%s is measured again)", error, run)
        return None
    headlines = {task: conditions.tasks[task].headline for task in run.tasks}
    pictures = len(conditions.parts.test(run.tasks))
    return kept(Measured, place.with_suffix(".json"), lambda found: odd_measurement(found, headlines, pictures))


def totals_of(conditions: Conditions, run: ArmRun) -> dict[str, PictureTotals | None]:
    """The stored totals of each test picture for the metrics of a measured run, by task.

    Raises:
        BundleError: a file that is damaged, or of other tasks or pictures.
    """
    file = conditions.store.measure(conditions.measure_key(run)).with_suffix(".safetensors")
    tasks = {task: conditions.tasks[task] for task in run.tasks}
    return load_totals(file, tasks, len(conditions.parts.test(run.tasks)))


def drawn_of(conditions: Conditions, run: ArmRun, counts: Integers) -> dict[str, Floats]:
    """The headline metric of a measured run in each bootstrap draw of test pictures, by task; computed once and stored.

    Args:
        conditions: shared by all runs.
        run: a measured run.
        counts: (R, P), see :func:`garnish.comparing.analysis.statistics.resamples`.
    """
    key = conditions.measure_key(run)
    file = conditions.store.measure(key).with_suffix(".draws.safetensors")
    with conditions.store.lock(key):
        totals = {task: of for task, of in totals_of(conditions, run).items() if of is not None}
        shapes = dict.fromkeys(totals, (torch.float64, (len(counts),)))
        if file.exists():
            try:
                known = open_state(file, len(totals) * 8 * len(counts) + 2**20)
                if known.shapes == shapes and known.facts == {"draws": len(counts)}:
                    return {task: values.numpy() for task, values in known.tensors().items()}
            except BundleError as error:
                _log.warning("%s (they are drawn again)", error)
        found = {task: headline_draws(conditions.tasks[task], [of], counts) for task, of in totals.items()}
        save_state(file, {task: torch.from_numpy(values) for task, values in found.items()}, {"draws": len(counts)})
        return found


# ---- painting ---------------------------------------------------------------------------------------------------


def sample_of(conditions: Conditions, index: int) -> Sample:
    """Test picture ``index`` with all its labels, at the evaluation size."""
    sample = conditions.parts.test()[index]
    size = conditions.training.eval_size
    return sample if size is None else resize_sample(sample, size)


def painted(conditions: Conditions, run: ArmRun, wanted: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], Path]:
    """A run's predictions for some test pictures, painted.

    Args:
        conditions: shared by all runs.
        run: a finished run.
        wanted: task → indices of test pictures.

    Returns:
        (task, index) → PNG file in the store; existing files are not painted again.
    """
    key = conditions.measure_key(run)
    folder = conditions.store.painting(key)
    files = {(task, i): folder / f"{task}-{i}.png" for task, indices in wanted.items() for i in indices}
    with conditions.store.lock(key):
        lacking = [at for at, file in files.items() if not has_picture(file)]
        model = open_bundle(conditions, run) if lacking else None
        for index in sorted({i for _, i in lacking}):
            assert model is not None
            images = sample_of(conditions, index).image.as_subclass(torch.Tensor)[None].to(model.device)
            names = [task for task, i in lacking if i == index]
            with torch.inference_mode():
                for task, raw in model(images, names).items():
                    decoded = model.tasks[task].decode(raw.float())[0].cpu()
                    write_cell(files[task, index], conditions.tasks[task].paint(decoded))
    return files


def painted_labels(conditions: Conditions, wanted: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], Path]:
    """As :func:`painted`, for the labels and the pictures themselves (as task "")."""
    tasks = list(conditions.tasks)
    size = conditions.training.eval_size
    test = conditions.parts.digest("test", tasks)
    key = key_of({"labels": test, "size": size})
    folder = conditions.store.painting(key)
    files: dict[tuple[str, int], Path] = {}
    for task, indices in wanted.items():
        for index in indices:
            files["", index] = folder / f"picture-{index}.png"
            files[task, index] = folder / f"{task}-{index}.png"
    with conditions.store.lock(key):
        for index in sorted({i for (_, i), file in files.items() if not has_picture(file)}):
            sample = sample_of(conditions, index)
            write_cell(files["", index], shown_picture(sample, conditions.parts.test().bands), smooth=True)
            for task, target in sample.targets.items():
                if (task, index) in files:
                    write_cell(files[task, index], conditions.tasks[task].paint(target.as_subclass(torch.Tensor)))
    return {at: file for at, file in files.items() if file.is_file()}


def shown_picture(sample: Sample, bands: Bands) -> np.ndarray:
    """(H, W, 3) uint8: the picture, or its bands red, green and blue."""
    held = sample.image.as_subclass(torch.Tensor).numpy()
    return held.transpose(1, 2, 0) if bands.is_rgb else in_colour(held, bands)


def write_cell(file: Path, pixels: np.ndarray, *, smooth: bool = False) -> None:
    """Write (H, W, 3) uint8 as PNG, no side longer than :data:`CELL_PX`."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = CELL_PX / max(image.size)
    if scale < 1:
        way = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        image = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)), way)
    keep_picture(file, picture_bytes(image, "PNG"))
