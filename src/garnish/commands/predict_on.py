"""``garnish predict --on ray``: many pictures on a cluster."""

from __future__ import annotations

import argparse
import importlib.util

from garnish.errors import OptionError, plural
from garnish.output import say

#: Failures that are listed; the others are counted, and all of them are in the manifest.
_MOST_LISTED = 100


def run_on(given: argparse.Namespace) -> int:
    """Predict what a command line names; returns the exit code: 1 if there were pictures that were not predicted.

    Raises:
        OptionError: options that cannot act on a cluster, and whatever :func:`garnish.cluster.bulk.predict_on` raises.
    """
    from garnish.cluster.connecting import ray_address

    if given.skip_existing:
        raise OptionError(
            "--skip-existing: with --on what is finished is known from OUT/.garnish-predict, and always left out; leave"
            " the option out"
        )
    if given.every != 1:
        raise OptionError(f"--every {given.every}: acts on videos, which --on does not take; leave it out")
    ray_address(given.on)  # an unknown one, and a missing Ray, are told before anything slow is imported
    if importlib.util.find_spec("ray") is None:
        raise OptionError(f"--on {given.on}: needs Ray; pip install 'garnish[ray]'")
    from garnish.cluster.bulk import BulkAsked, predict_on
    from garnish.cluster.bulk_manifest import told_counts
    from garnish.commands.predict_progress import PredictProgress
    from garnish.commands.printing import print_json
    from garnish.commands.words import bundle_paths, load_bundles
    from garnish.files.given_pictures import folder_to_write
    from garnish.model.input_size import InputSize, input_size
    from garnish.predicting.write_words import write_options
    from garnish.predicting.writing import check_written
    from garnish.stores.place import is_address
    from garnish.tiles.words import given_tiling

    if not is_address(given.out):
        folder_to_write(given.out)
    options, tiling = write_options(given), given_tiling(given)
    model = load_bundles(given.bundle, given.weights, "cpu")
    for name in given.tasks or ():
        model.served.owner(name)  # an unknown one is refused before anything is listed
    tasks = {name: task for name, task in model.served.tasks.items() if given.tasks is None or name in given.tasks}
    check_written({}, options, tasks)
    seen = input_size(given.size, model.served, given.tasks)
    if seen != InputSize() and not given.json:
        say(seen.told)
    asked = BulkAsked(
        on=given.on,
        given=given.images,
        out=given.out,
        options=options,
        tasks=given.tasks,
        batch=given.batch,
        tiling=tiling,
        size=given.size,
        device=given.device,
        workers=given.workers,
    )
    done = predict_on(
        asked, model, bundle_paths(given.bundle), lambda total: PredictProgress(total, lines=not given.json)
    )
    if given.json:
        found = done.records.values()
        print_json(
            {record.picture: [f"{done.place}/{file}" for file in record.files] for record in found if record.files}
        )
    say(told_counts(done.manifest, done.place), stderr=True)
    failed = [record for record in done.records.values() if record.failed]
    if not failed:
        return 0
    say(f"{len(failed)} of {plural(len(done.records), 'picture')} not predicted:", stderr=True)
    for record in failed[:_MOST_LISTED]:
        text, where = record.failed, record.picture
        say(f"  {text if where in text else f'{where}: {text}'}", stderr=True)
    if len(failed) > _MOST_LISTED:
        say(f"  and {len(failed) - _MOST_LISTED:,} more, in the manifest", stderr=True)
    return 1
