"""A repository of the Hub that a bundle is pushed to: making it, looking at what it holds, and the one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from garnish.bundles.bundle_json import DESCRIPTION
from garnish.errors import HubError, one_line
from garnish.hub.address import HubAddress
from garnish.hub.client import PATIENCE, hub_api, require_token, silent
from garnish.hub.refusals import hub_errors
from garnish.sharing.sent import SENT

_OFFLINE = "unset it to push"
#: What a repository that somebody has just made holds.
_BEGUN = (".gitattributes", "README.md", "LICENSE", ".gitignore")


@final
@dataclass(frozen=True)
class RepositoryState:
    """A repository before a commit.

    Attributes:
        commit: that the branch is at.
        private: whether only its owner sees it.
        has_bundle: whether a bundle lies there.
    """

    commit: str
    private: bool
    has_bundle: bool


def prepared_repository(address: HubAddress, branch: str | None, *, private: bool, may_make: bool) -> RepositoryState:
    """Make a repository and a branch if they are missing; the state that the branch is in.

    Args:
        address: the repository.
        branch: of it; None: main.
        private: whether only its owner may see it.
        may_make: whether it may be made.

    Raises:
        HubError: no token, no right, a repository that is public or holds something else than a bundle.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    require_token(str(address))
    api = hub_api()
    with hub_errors(str(address), offline=_OFFLINE), silent():
        try:
            info = api.model_info(address.repository, timeout=PATIENCE)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            if not may_make:
                raise
            api.create_repo(address.repository, private=private, exist_ok=True)
            info = api.model_info(address.repository, timeout=PATIENCE)
        if private and not info.private:
            raise HubError(
                f"{address}: is public, and --private was given; change it on its page, or choose another repository"
            )
        is_private = info.private
        if branch is not None:
            try:
                info = api.model_info(address.repository, revision=branch, timeout=PATIENCE)
            except RevisionNotFoundError:
                api.create_branch(address.repository, branch=branch)
                info = api.model_info(address.repository, revision=branch, timeout=PATIENCE)
    names = [file.rfilename for file in info.siblings or ()]
    others = [name for name in names if name not in (*SENT, *_BEGUN)]
    if others and DESCRIPTION not in names:
        raise HubError(
            f"{address}: holds other files than a bundle's ({one_line(', '.join(others[:3]), 100)}), which it is not to"
            " be mixed with; choose another repository"
        )
    if info.sha is None:
        raise HubError(f"{address}: the Hub names no commit of it; try again")
    return RepositoryState(str(info.sha), bool(is_private), DESCRIPTION in names)


def committed(
    address: HubAddress,
    branch: str | None,
    files: Mapping[str, bytes],
    message: str,
    state: str,
    *,
    create_pr: bool,
) -> tuple[str, str]:
    """Write files in one commit on top of a state; the commit, and its address or that of the pull request.

    What was uploaded before an interruption is not sent again, and a file that is there already is left out.

    Raises:
        HubError: no right to write, the branch was changed since, no network; nothing is changed then.
    """
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()]
    with hub_errors(str(address), offline=_OFFLINE), silent():
        made = hub_api().create_commit(
            address.repository,
            operations,
            commit_message=message,
            revision=branch,
            create_pr=create_pr,
            parent_commit=state,
        )
    return str(made.oid), str(made.pr_url or made.commit_url)
