"""What the server needs beside garnish: the extra ``[serve]``."""

from __future__ import annotations

import importlib

from garnish.errors import MissingExtraError


def require_server() -> None:
    """Do nothing where the server's libraries are installed.

    Raises:
        MissingExtraError: one is not.
    """
    try:
        for name in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
            importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"the server needs {error.name or 'more libraries'}, which is not installed; pip install 'garnish[serve]'"
        ) from error
