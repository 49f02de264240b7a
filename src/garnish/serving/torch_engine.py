"""``TorchEngine``: a model whose bundles come and go while it runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from torch import nn

from garnish.bundles.bundle import add_described
from garnish.bundles.bundle_json import BundleFacts, bundle_folder, read_bundle_json
from garnish.bundles.licences_told import binding, licences_told
from garnish.bundles.origin import origin_of
from garnish.bundles.own_backbone import check_same
from garnish.bundles.renaming import Renaming
from garnish.bundles.sound_descriptions import SoundDescriptions
from garnish.bundles.specs import backbone_facts
from garnish.checking.finite import all_finite, is_finite
from garnish.checking.plain_data import Json
from garnish.errors import BundleError, GarnishError, OptionError
from garnish.files.atomic import read_present
from garnish.model.model import Model
from garnish.model.served import Addition, Served
from garnish.serving.engine import Engine, Loaded, Outcome, Row
from garnish.serving.torch_rows import InModel, run_rows


@final
class TorchEngine(Engine):
    """Bundles in one model, each under names of its own, which are never used again.

    Args:
        model: without tasks, of the trunk that the bundles belong to; on any device, in float32 or float64.

    Raises:
        OptionError: a model with tasks, or in half precision, by whose values no bundle would know its trunk.
        GarnishError: a trunk with values that are not finite.
    """

    def __init__(self, model: Model) -> None:
        if model.tasks:
            raise OptionError(f"serve: the model has tasks ({', '.join(model.tasks)}); give one without")
        dtype = next(model.backbone.body.parameters()).dtype
        if dtype.itemsize < 4:
            raise OptionError(f"serve: the trunk is in {dtype}; bundles know its float32 values, so give it in float32")
        if not all_finite(model.backbone.body):
            raise GarnishError(f"serve: the trunk {model.backbone.name} has values that are not finite; get it again")
        self.model = model.eval()
        self.step = model.backbone.multiple
        if model.device.type != "cpu":
            self.batch, self.pixels = 8, 2**24
        self.trunk: Mapping[str, Json] = dict(backbone_facts(model.backbone))
        self._fingerprint = model.backbone.fingerprint()
        self._sound = SoundDescriptions()
        self._numbers = itertools.count()

    def load(self, name: str, folder: Path) -> Loaded:
        """Read a bundle; any number of threads may, beside passes."""
        number = next(self._numbers)
        return read_present(folder, lambda there: self._read(name, there, number))

    def _read(self, name: str, folder: Path, number: int) -> Loaded:
        where = str(folder)
        facts = self._described(folder)
        names = Renaming({task: f"b{number}-{task}" for task in facts["tasks"]}, facts["tasks"], where)
        with torch.random.fork_rng(devices=[]):
            made = add_described(self.model, where, bundle_folder(folder), facts, names, self._sound)
        try:
            return _loaded(name, facts, made, names, where)
        except BundleError:
            self.model.remove(list(names.new.values()))
            raise

    def check(self, folder: Path) -> None:
        """Raise BundleError for a damaged description, or one of another trunk."""
        read_present(folder, self._described)

    def _described(self, folder: Path) -> BundleFacts:
        trunk, facts = self.model.backbone, read_bundle_json(folder)
        check_same(
            str(folder),
            facts["backbone"],
            trunk,
            "this server's trunk",
            known=self._fingerprint,
            remedy=f"this server's trunk is {trunk.name}: serve the bundle from another server, or train it on this"
            " trunk",
        )
        return facts

    def unload(self, loaded: Loaded) -> None:
        """Remove its tasks from the model."""
        self.model.remove(list(loaded.handle.names.values()))
        for owner in loaded.handle.part.owner_of.values():
            owner.root.dissolve()  # its memory would wait for the collector, which a server calls seldom

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        """One pass of all rows, with the tasks that each asks for."""
        return run_rows(self.model, rows)


def _loaded(name: str, facts: BundleFacts, made: Addition, names: Renaming, where: str) -> Loaded:
    """A bundle that was added to a model, as passes and people see it.

    Raises:
        BundleError: a task without a decoding, tasks whose pictures have different bands, or values that are not finite
            in the model's dtype.
    """
    # sums of two; the rest is as stored
    if not all(is_finite(value) for owner in made.members() for _, value in owner.tuned.items()):
        raise BundleError(f"{where}: holds tuned values beyond all numbers; it is damaged: get or save it again")
    part = Served({}, {}, {}).plus(made)
    try:
        bands = part.bands_of(part.tasks)
    except OptionError as error:
        raise BundleError(f"{where}: {error}; save them as two bundles") from error
    decodings = {}
    for task, by in made.tasks.items():
        if by.decoding is None:
            raise BundleError(
                f"{where}: task {names.old(task)!r} ({type(by).__name__}) names no decoding, without which its map has"
                " no file; serve a bundle without it"
            )
        decodings[names.old(task)] = by.decoding
    stated = licences_told(facts)
    scales = {names.old(task): part.owner(task).root.scale for task in made.tasks}
    return Loaded(
        name=name,
        decodings=decodings,
        kinds={names.old(task): type(by).__name__ for task, by in made.tasks.items()},
        bands=bands,
        sha256=facts["sha256"],
        nbytes=bytes_of(made.modules()),
        handle=InModel(names.new, part),
        told={
            "licence": facts["backbone"]["licence"],
            "bundle_licence": stated.bundle,
            "data_licence": stated.data,
            "non_commercial": bool(binding(facts)),
            "from": origin_of(where, facts),
            "trained_at": {task: scale.facts() for task, scale in scales.items() if scale is not None},
            "metrics": facts["metrics"],
        },
        statistics=next((part.owner(task).given.statistics for task in part.tasks), None),
    )


def bytes_of(modules: Iterable[nn.Module]) -> int:
    """Bytes of all tensors of some modules, each counted once."""
    found = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())
