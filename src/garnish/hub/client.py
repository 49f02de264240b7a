"""The client of huggingface_hub, as it is used here: silent, and with a patience that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from garnish.errors import HubError
from garnish.output import muted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Seconds that the Hub may take to answer a question.
PATIENCE = 20


def hub_api() -> HfApi:
    """The client, with the token of ``hf auth login`` or HF_TOKEN if there is one."""
    from huggingface_hub import HfApi

    from garnish import __version__

    return HfApi(library_name="garnish", library_version=__version__)


def require_token(where: str) -> None:
    """Raise HubError if nobody is logged in."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise HubError(
            f"{where}: writing to the Hub needs a token, and there is none; run `hf auth login`, or set HF_TOKEN"
        )


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextmanager
def silent() -> Iterator[None]:
    """Without the bars and lines of huggingface_hub, which name other remedies than ours, in a ``with`` block."""
    from huggingface_hub import utils

    bars: Any = utils  # their names are not declared as exported
    shown = not bars.are_progress_bars_disabled()
    with muted("huggingface_hub"):
        if shown:
            bars.disable_progress_bars()
        try:
            yield
        finally:
            if shown:
                bars.enable_progress_bars()
