"""``garnish.push``: a bundle and its card to the Hugging Face Hub, in one commit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from garnish.bundles.bundle_json import BEST, DESCRIPTION, read_bundle_json
from garnish.bundles.licences_told import licences_told
from garnish.bundles.written_files import Metrics
from garnish.checking.arguments import checked
from garnish.engine.stated_licences import StatedLicences
from garnish.errors import BundleError, HubError, OptionError, one_line, shown
from garnish.files.strict_json import MOST_BYTES
from garnish.hub.address import HubAddress
from garnish.hub.download import WantedFile, download
from garnish.model.model import Model
from garnish.output import logger
from garnish.sharing.card import card_text
from garnish.sharing.licences import StatedLicence, stated_licence
from garnish.sharing.repository import RepositoryState, committed, prepared_repository
from garnish.sharing.sent import CARD, SentBundle, sent_bundle, told_paths

#: Most characters of a commit's message, and of a licence's text.
_MOST_MESSAGE = 200


_log = logger(__name__)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Pushed:
    """What was pushed.

    Attributes:
        repository: ``user/name``.
        files: name → bytes.
        card: the text of README.md.
        licence: that the card states.
        told_paths: paths of your machine that ``bundle.json`` names, for the world to read.
        commit: the commit that has them; None: a dry run.
        url: of the commit, or of the pull request.
        changed: False: the repository had just these files, and no commit was made.
        private: whether only its owner sees the repository; None: a dry run, which does not ask.
        metrics_lost: tasks of the bundle that lay there whose metrics the new one, of other weights, does not have.
    """

    repository: str
    files: Mapping[str, int]
    card: str
    licence: StatedLicence
    told_paths: tuple[str, ...] = ()
    commit: str | None = None
    url: str | None = None
    changed: bool = False
    private: bool | None = None
    metrics_lost: tuple[str, ...] = ()

    def __repr__(self) -> str:
        seen = "not sent" if self.commit is None else "unchanged" if not self.changed else "new"
        where = "" if self.private is None else ", private" if self.private else ", public"
        at = "" if self.commit is None else f"@{self.commit}"
        return f"Pushed({self.repository}{at}, {len(self.files)} files, licence {self.licence.text}, {seen}{where})"


@checked
def push(
    bundle: Model | str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    create_pr: bool = False,
    licence: str | None = None,
    data_licence: str | None = None,
    base_model: str | None = None,
    data_name: str | None = None,
    metrics: Metrics | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Upload a bundle, and a card made of what it says, to a repository of the Hub, in one commit.

    The backbone's weights and the data stay where they are. The token is that of ``hf auth login`` or HF_TOKEN.

    Args:
        bundle: a bundle's folder, a run's (its best is taken), or a model.
        repository: ``user/name``, with ``hub:`` in front or not; made if it is missing.
        private: make it so that only you see it; a repository that is there must be private already.
        revision: the branch to commit to, made if it is missing; None: ``main``.
        message: of the commit.
        create_pr: open a pull request instead, for repositories of others.
        licence: an identifier such as ``apache-2.0``, of what is pushed, or ``other:NAME``. None: what the bundle
            states, else what follows from the licences of the backbone's weights and the data; where they do not say,
            "unknown". It and the next go into ``bundle.json`` too, and bind whoever pushes a copy.
        data_licence: that of the training pictures, in any words; added to what the bundle states of them.
        base_model: the Hub id of the backbone's weights, where the bundle names a file.
        data_name: what the card calls the pictures that were trained and measured on; None: as the recipe says.
        metrics: of a model, task → metric → value, as :func:`garnish.evaluate` gives them. None, where the repository
            has just these weights with metrics: those are kept.
        dry_run: make the card, and ask nothing of the network.

    Raises:
        BundleError: no bundle, a damaged one, or one whose backbone has random weights. OptionError: names of no
            repository, or a licence that allows what the backbone's or the data's forbids. HubError: no token, no right
            to write, a repository that holds something else, no network. The repository is unchanged then.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> gn.push(model, "me/rooms", licence="apache-2.0", dry_run=True)
        Pushed(me/rooms, 4 files, licence apache-2.0, not sent)
    """
    _check_order(bundle, repository)
    address = HubAddress.parse(repository, "write user/name")
    if address.folder or address.revision is not None:
        raise OptionError(f"push: {shown(repository)} has more than user/name; give a branch as revision (--revision)")
    branch = address.at(revision, "push: revision").revision
    if message is not None and not (message.strip() and len(message) <= _MOST_MESSAGE and message.isprintable()):
        raise OptionError(f"push: message: {shown(message)}; write one line of 1 to {_MOST_MESSAGE} characters")
    if data_licence is not None and not (0 < len(data_licence.strip()) <= _MOST_MESSAGE and data_licence.isprintable()):
        raise OptionError(
            f"push: data_licence: {shown(data_licence)}; write one line of 1 to {_MOST_MESSAGE} characters"
        )
    if data_name is not None and not (0 < len(data_name.strip()) <= _MOST_MESSAGE and data_name.isprintable()):
        raise OptionError(f"push: data_name: {shown(data_name)}; write one line of 1 to {_MOST_MESSAGE} characters")
    if private and create_pr:
        raise OptionError("push: a pull request goes to a repository that is there; leave private out")
    sent = sent_bundle(bundle, metrics)
    trunk = sent.facts["backbone"]
    earlier = licences_told(sent.facts)
    stated = stated_licence(licence, trunk["licence"], data_licence, flagged=trunk["non_commercial"], earlier=earlier)
    sent = sent.stating(StatedLicences(stated.words, stated.data))
    base = None if base_model is None else HubAddress.parse(base_model, "write user/name").repository

    def made(whole: SentBundle) -> tuple[Pushed, dict[str, bytes]]:
        card = card_text(whole.facts, address.repository, stated, base, data_name)
        files = {**whole.files, CARD: card.encode()}
        sizes = {name: len(data) for name, data in files.items()}
        paths = told_paths(whole.facts)
        said = Pushed(repository=address.repository, files=sizes, card=card, licence=stated, told_paths=paths)
        return said, files

    if dry_run:
        return made(sent)[0]
    state = prepared_repository(address, branch, private=private, may_make=not create_pr)
    sent, lost = _as_measured(sent, address, state)
    said, files = made(sent)
    commit, url = committed(address, branch, files, message or _message(sent), state.commit, create_pr=create_pr)
    if not commit:
        raise HubError(f"{address}: the Hub names no commit; look at the repository's page before you push again")
    changed = commit != state.commit
    return replace(said, commit=commit, url=url, changed=changed, private=state.private, metrics_lost=lost)


def _as_measured(sent: SentBundle, address: HubAddress, state: RepositoryState) -> tuple[SentBundle, tuple[str, ...]]:
    """A bundle without metrics with those of the same weights in the repository; else the tasks that lose theirs."""
    if sent.has_metrics or not state.has_bundle:
        return sent, ()
    at = HubAddress(address.repository, "", state.commit)
    try:
        there = read_bundle_json(download(at, {DESCRIPTION: WantedFile(MOST_BYTES)}).folder)
    except BundleError:  # what is damaged is replaced
        return sent, ()
    if there["sha256"] == sent.facts["sha256"]:
        return sent.measured_as(there), ()
    lost = tuple(task for task, values in there["metrics"].items() if values)
    if lost:
        _log.warning("%s: had metrics of %s, and the new bundle has none; pass metrics=", address, ", ".join(lost[:8]))
    return sent, lost


def _check_order(bundle: object, repository: str) -> None:
    """Raise OptionError where the two were swapped: what is to be pushed is not there, and its repository is."""
    if isinstance(bundle, str | os.PathLike) and not Path(bundle).expanduser().exists():
        place = Path(repository).expanduser()
        if any((folder / DESCRIPTION).is_file() for folder in (place, place / BEST)):
            raise OptionError(
                f"push: {shown(repository)} is a bundle, and there is no folder {shown(os.fspath(bundle))}; the bundle"
                " comes first, then user/name"
            )


def _message(sent: SentBundle) -> str:
    return one_line(f"A bundle of {', '.join(sent.facts['tasks'])} on {sent.facts['backbone']['name']}", _MOST_MESSAGE)
