"""Bulk prediction: blocks of pictures through Ray Data, by actors that hold one trunk each; going on after a crash.

Ray Data does the streaming, the back-pressure and the placing; what was finished is known from the parts of
:mod:`garnish.cluster.bulk_manifest`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, final

from garnish import __version__
from garnish.checking.plain_data import Json
from garnish.cluster.bulk_bench import BulkJob
from garnish.cluster.bulk_blocks import Block, planned_blocks
from garnish.cluster.bulk_inputs import BulkFile, bulk_files, check_made_names
from garnish.cluster.bulk_manifest import (
    Earlier,
    Part,
    PictureRecord,
    begin_run,
    read_parts,
    run_key,
    write_manifest,
)
from garnish.cluster.bulk_worker import BulkWorker
from garnish.cluster.connecting import connected
from garnish.cluster.shipped_model import model_digests, shipped
from garnish.decodings.written import written_stems
from garnish.errors import DataError, GarnishError, OptionError, one_line, plural
from garnish.model.input_size import SizeRule
from garnish.model.model import Model
from garnish.output import logger, muted
from garnish.predicting.write_options import WriteOptions
from garnish.predicting.writing import Told
from garnish.stores.place import Place, is_address
from garnish.tiles.tiling import Tiling

_log = logger(__name__)

#: How often a block is tried again whose worker died under it: with it a picture that ends its reader is found.
_MOST_DEATHS = 10
#: Processors of a worker with a GPU, for reading and writing, where the nodes have as many.
_CPUS_OF_GPU = 4


@final
@dataclass(frozen=True)
class BulkAsked:
    """What is asked of a cluster.

    Attributes:
        on: as :func:`garnish.cluster.connecting.ray_address` takes it.
        given: paths, patterns and addresses of pictures and shards.
        out: path or address that maps are written to.
        options: what is written; ``out`` of it is not used.
        tasks: names; None: all.
        batch: pictures of one size in a pass; None: one on a CPU, up to 8 elsewhere.
        tiling: how pictures are run.
        size: at which the model sees them.
        device: auto: a GPU for each worker if the cluster has GPUs.
        workers: how many; None: as many as the cluster has room for.
    """

    on: str
    given: Sequence[str]
    out: str
    options: WriteOptions
    tasks: Sequence[str] | None = None
    batch: int | None = None
    tiling: Tiling = field(default_factory=Tiling)
    size: SizeRule = None
    device: str = "auto"
    workers: int | None = None

    def facts(self, model: Model, digests: Sequence[str]) -> dict[str, Json]:
        """What maps depend on, by option, for ``run.json``."""
        tasks = [name for name in model.served.tasks if self.tasks is None or name in self.tasks]
        kinds: list[Json] = list(self.options.kinds)
        tile, size = self.tiling, self.size
        return {
            "bundle": list(digests),
            "tasks": list(tasks),
            "write": kinds,
            "opacity": self.options.opacity if "overlays" in kinds else None,
            "tile": tile.tile,
            "overlap": tile.overlap,
            "flip": tile.flip,
            "size": list(size) if isinstance(size, tuple) else size,
            "batch": self.batch,
            "garnish": __version__,
        }


@final
@dataclass(frozen=True)
class BulkDone:
    """What came of it.

    Attributes:
        manifest: what ``manifest.json`` says.
        records: name → what came of each picture.
        place: that maps were written to.
        seconds: of Ray's start, of the workers until the first block was done, and of all blocks.
    """

    manifest: Mapping[str, Any]
    records: Mapping[str, PictureRecord]
    place: Place
    seconds: Mapping[str, float]


def predict_on(
    asked: BulkAsked,
    model: Model,
    paths: Sequence[str],
    telling: Callable[[int | None], AbstractContextManager[Told]],
) -> BulkDone:
    """Predict pictures on a Ray cluster; what earlier runs over the same place finished is left out.

    Args:
        asked: what.
        model: on this machine, for checks; nodes open their own.
        paths: bundles' folders, or the name of a finished model, that it was opened from.
        telling: how many pictures there are to predict, None where shards do not say → who is told of each.

    Raises:
        OptionError: names of maps that collide, a place that was begun with other options, no cluster, a node that
            does not see a folder. DataError: no pictures; what cannot be listed or written; workers that died.
    """
    start = time.perf_counter()
    out = asked.out if is_address(asked.out) else os.path.abspath(asked.out)  # noqa: PTH100 (links stay links)
    place = Place.of(out)
    out = str(place)  # of file:///folder the folder
    files = bulk_files(asked.given, out)
    tasks = {name: task for name, task in model.served.tasks.items() if asked.tasks is None or name in asked.tasks}
    check_made_names(files, written_stems(asked.options.kinds, tasks), out)
    facts = asked.facts(model, model_digests(paths, model))
    begin_run(place, facts)

    earlier = Earlier.of(read_parts(place), {file.name: file.version for file in files})
    sizes = {name: found.size for name, found in place.listed().items()} if earlier.records else {}
    pending = earlier.pending(files, sizes)
    redone = {file.name for file in pending}
    records = {name: record for name, record in earlier.records.items() if (record.shard or name) not in redone}
    if records:
        _log.info("%s: earlier runs did %s, which are left out", place, plural(len(records), "picture"))
    before = {name for name, record in records.items() if not record.failed}
    seconds = {"start": 0.0, "first": 0.0, "all": 0.0}
    if pending:
        job = BulkJob(
            model=None,
            out=out,
            asked=facts,
            run=run_key(facts),
            options=asked.options,
            tasks=None if asked.tasks is None else tuple(asked.tasks),
            batch=asked.batch,
            tiling=asked.tiling,
            size=asked.size,
            device=asked.device,
        )
        tries = {name: record.tries for name, record in earlier.records.items() if record.failed}
        total = None if any(file.is_shard for file in pending) else len(pending)
        with connected(asked.on) as ray, telling(total) as told:
            seconds["start"], begun = time.perf_counter() - start, time.perf_counter()
            sent = shipped(paths, model, as_bytes=asked.on != "ray")
            job = replace(job, model=sent if asked.on == "ray" else ray.put(sent))
            for answer in _answers(ray, job, pending, tries, asked):
                seconds["first"] = seconds["first"] or time.perf_counter() - begun
                before |= _taken(answer, records, earlier.records, told)
            seconds["all"] = time.perf_counter() - begun
    manifest = write_manifest(place, facts, records, len(before & records.keys()), time.perf_counter() - start)
    return BulkDone(manifest, records, place, seconds)


def _taken(
    answer: Mapping[str, Any],
    records: dict[str, PictureRecord],
    earlier: Mapping[str, PictureRecord],
    told: Told,
) -> set[str]:
    """Add what a worker answered to the records; returns the names of those that an earlier run predicted."""
    before: set[str] = set()
    for line in answer["told"]:
        _log.warning("%s", line)
    found = [(record, False) for record in map(PictureRecord.of, answer["failed"])]
    for part in answer["parts"]:
        found += [(record, part["again"]) for record in Part.of(part["text"], part["key"]).records]
    for record, again in found:
        is_new = record.name not in records
        records[record.name] = record
        if again and not record.failed and record.name in earlier:
            before.add(record.name)
        if is_new:
            told.picture(None if record.failed else f"{record.picture}: {', '.join(record.files)}")
    return before


def _answers(
    ray: ModuleType, job: BulkJob, pending: Sequence[BulkFile], tries: Mapping[str, int], asked: BulkAsked
) -> Iterator[dict[str, Any]]:
    """What workers answer to each block, as they come."""
    try:
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError as error:
        raise OptionError(
            f"--on {asked.on}: needs Ray Data ({one_line(error, 120)}); pip install 'garnish[ray]'"
        ) from None
    count, cpus, gpus = _room(ray.cluster_resources(), asked)
    blocks: list[Block] = list(planned_blocks(pending, tries, count))
    count = min(count, len(blocks))
    if job.device == "auto":  # torch may see GPUs that were not given to the worker
        job = replace(job, device="cuda" if gpus else "cpu")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with muted("ray.data", "ray.data._internal"):
        rows = ray.data.from_items([{"block": block.text()} for block in blocks], override_num_blocks=len(blocks))
        answers = rows.map(
            BulkWorker,
            fn_constructor_args=(job,),
            compute=ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
            num_cpus=cpus,
            num_gpus=gpus,
            max_task_retries=_MOST_DEATHS,
        )
        try:
            for row in answers.iter_rows():
                answer = json.loads(row["answer"])
                if "refused" in answer:
                    raise GarnishError(answer["refused"])
                yield answer
        except ray.exceptions.RayError as error:
            raise DataError(
                f"--on {asked.on}: workers failed for good ({one_line(error, 160)}); what is finished is kept, and"
                " the same command goes on with the rest"
            ) from error


def _room(resources: Mapping[str, float], asked: BulkAsked) -> tuple[int, float, float]:
    """How many workers, and the processors and GPUs of each.

    Raises:
        OptionError: a cluster that has none of what is asked.
    """
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    on_gpu = asked.device.partition(":")[0] not in ("cpu", "auto") or (asked.device == "auto" and gpus >= 1)
    if on_gpu and gpus < 1:
        raise OptionError(f"--device {asked.device}: the cluster of --on {asked.on} has no GPUs; write --device cpu")
    if cpus < 1:
        raise OptionError(f"--on {asked.on}: the cluster has no processors for workers; add nodes with CPUs")
    most = int(gpus if on_gpu else cpus)
    own = max(1, min(_CPUS_OF_GPU, math.floor(cpus / gpus))) if on_gpu else 1
    most = min(most, int(cpus // own))
    if asked.workers is not None and asked.workers > most:
        if asked.on == "ray":
            what = "GPUs" if on_gpu else "processors"
            raise OptionError(f"--workers {asked.workers}: this machine has {most} {what}; ask for no more")
        _log.warning(
            "--workers %d: the cluster has room for %d now; the others begin as nodes come", asked.workers, most
        )
    return asked.workers or most, float(own), 1.0 if on_gpu else 0.0
