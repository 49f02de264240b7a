"""Predict a picture file that is too large to be held: see :mod:`garnish.tiles.streaming`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from garnish.engine.shared_passes import Wanted
from garnish.model.evaluation_mode import evaluating
from garnish.model.model import Model
from garnish.model.predict import check_finite, looking, tell_odd_scale
from garnish.model.windowed import decodings_of, window_runner
from garnish.tiles.streaming import stream_maps
from garnish.tiles.tiling import Tiling


def predict_streamed(
    model: Model, file: Path, stem: Path, tasks: Sequence[str] | None, tiling: Tiling, told: Callable[[str], None]
) -> dict[str, Path]:
    """Write the maps of one picture as tiled TIFF, ``STEM_TASK.tif``: task → file; as :func:`stream_maps`.

    Raises:
        OptionError, GarnishError: as :func:`garnish.model.predict.predict`.
    """
    served = model.served
    check_finite(model, tasks, served, str(file))
    names = Wanted.of(tasks, 1, served.tasks).tasks
    decodings = decodings_of({name: served.tasks[name] for name in names})
    with evaluating(model), torch.inference_mode():
        run_window = window_runner(model, names, served, looking(model, str(file)))

        def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
            tell_odd_scale(pixels, served, names, str(file))
            return run_window(pixels)

        step = model.backbone.multiple
        return stream_maps(
            file, stem, decodings, run, bands=served.bands_of(names), step=step, tiling=tiling, told=told
        )
