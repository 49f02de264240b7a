"""Loggers other than CSV and TensorBoard: Lightning's own, and any other Fabric logger that is allowed by its name.

A recipe may come from a stranger, and importing a module runs it. So a recipe can name Lightning's own loggers only;
the name of another class must stand outside of it as well (``garnish train --allow-logger``, ``fit(allow_loggers=)``).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.errors import MissingExtraError, OptionError, one_line, shown

if TYPE_CHECKING:
    from lightning.fabric.loggers import Logger

#: Logs that :mod:`garnish.training.scalars` writes itself.
OWN = ("tensorboard", "csv")
#: Short name → class, module that it needs, and package to install.
_SHORT = {
    "wandb": ("lightning.pytorch.loggers.WandbLogger", "wandb", "wandb"),
    "mlflow": ("lightning.pytorch.loggers.MLFlowLogger", "mlflow", "mlflow"),
    "comet": ("lightning.pytorch.loggers.CometLogger", "comet_ml", "comet-ml"),
}
#: Class paths that need no allowance: exactly these, since other modules of a known package may do anything when run.
KNOWN = frozenset(
    f"{package}.{name}"
    for package, names in {
        "lightning.fabric.loggers": ("CSVLogger", "TensorBoardLogger"),
        "lightning.pytorch.loggers": (
            "CSVLogger", "TensorBoardLogger", "WandbLogger", "MLFlowLogger", "CometLogger", "NeptuneLogger",
        ),
    }.items()
    for name in names
)  # fmt: skip
#: Constructor options for the log folder; the first that a class has is used.
_FOLDER = ("root_dir", "save_dir")


def check_name(name: str) -> None:
    """Raise OptionError unless the name is known or a dotted path; nothing is imported."""
    if name not in OWN and name not in _SHORT and "." not in name.strip("."):
        raise OptionError(
            f"train.log: {shown(name)}; choose from {', '.join((*OWN, *_SHORT))}, or name the class of a Fabric"
            " logger, e.g. lightning.fabric.loggers.CSVLogger"
        )


def check_allowed(names: Collection[str], allowed: Collection[str]) -> None:
    """Raise OptionError for a class that is neither known nor allowed; nothing is imported.

    Args:
        names: as ``train.log`` has them.
        allowed: class paths that whoever starts the run trusts; never read from a recipe or a run's folder.
    """
    for name in names:
        if name not in (*OWN, *_SHORT, *KNOWN, *allowed):
            told = one_line(name, 80)
            raise OptionError(
                f"train.log: {told} is none of garnish's loggers ({', '.join((*OWN, *_SHORT))}), and to import it"
                f" runs its code; if you trust it, add --allow-logger {told}, in Python allow_loggers=[{told!r}]"
            )


def logger_class(name: str) -> type[Logger]:
    """The class that a short or dotted name stands for; the name has passed :func:`check_allowed`.

    Raises:
        MissingExtraError: a package is not installed. OptionError: no such class, or not a logger.
    """
    path, needs, install = _SHORT.get(name, (name, "", ""))
    if needs and importlib.util.find_spec(needs) is None:
        raise MissingExtraError(
            f"train.log: {name} is not installed; pip install {install}, or leave it out of log (csv needs nothing)"
        )
    from lightning.fabric.loggers import Logger

    module, _, leaf = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), leaf)
    except Exception as error:  # whatever the import of somebody else's module raises
        raise OptionError(
            f"train.log: {name} cannot be imported ({one_line(error, 120)}); correct its path, or install what"
            " it imports"
        ) from None
    # only loggers are ever called
    if not (inspect.isclass(found) and issubclass(found, Logger)):
        raise OptionError(
            f"train.log: {name} is no class of a Fabric logger; derive it from {Logger.__module__}.Logger"
        )
    return found


def start_logger(name: str, folder: Path) -> Logger:
    """Make a logger with the log folder and otherwise default options (many read environment variables).

    Raises:
        MissingExtraError, OptionError: as :func:`logger_class`, or it cannot be created.
    """
    made = logger_class(name)
    taken = [option for option in _FOLDER if option in inspect.signature(made).parameters]
    try:
        return made(**{option: str(folder) for option in taken[:1]})
    except Exception as error:  # from another package, which may contact a server
        raise OptionError(
            f"train.log: {name} cannot be started ({one_line(error, 160)}); set it up, or leave it out of log"
        ) from error
