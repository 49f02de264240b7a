"""The batches of a run: from its data alone, or with cached trunk features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning.fabric import Fabric

from garnish.data.dataset import Dataset
from garnish.data.loader import StepBatches
from garnish.model.model import Model
from garnish.training.feature_cache import CachedBatches, CachedPictures, CachedTrunk, FeatureCache, cached_val
from garnish.training.train_options import TrainOptions


def step_batches(
    model: Model,
    tasks: Sequence[str],
    train: Dataset,
    val: Dataset | None,
    batch_size: int,
    options: TrainOptions,
    fabric: Fabric,
    warn: Callable[[str], None],
) -> tuple[StepBatches | CachedBatches, CachedPictures | None]:
    """Batches of the training pictures, and the validation pictures with cached features; None: not cached."""
    batches = StepBatches(
        train,
        batch_size,
        seed=options.seed,
        augment=options.augment,
        variants=options.variants,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=options.workers,
    )
    if options.cache is None:
        return batches, None
    cache = FeatureCache(options.cache, options.cache_gb, warn, processes=fabric.world_size)
    cached = CachedBatches(cache, CachedTrunk(model, list(tasks), fabric), batches)
    return cached, cached_val(cache, model, val, options.eval_size, fabric)
