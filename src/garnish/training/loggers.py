"""Loggers other than CSV and TensorBoard: some of Lightning's by short name, any Fabric logger by its class path."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.errors import MissingExtraError, OptionError, one_line

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
#: Constructor options for the log folder; the first that a class has is used.
_FOLDER = ("root_dir", "save_dir")


def check_name(name: str) -> None:
    """Raise OptionError unless the name is known or a dotted path; nothing is imported."""
    if name not in OWN and name not in _SHORT and "." not in name.strip("."):
        raise OptionError(
            f"train.log: {name!r}; choose from {', '.join((*OWN, *_SHORT))}, or name the class of a Fabric logger, e.g."
            " lightning.fabric.loggers.CSVLogger"
        )


def logger_class(name: str) -> type[Logger]:
    """The class that a short or dotted name stands for.

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
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"train.log: {name} cannot be imported ({one_line(error, 120)}); correct its path") from None
    # only loggers are ever called: an untrusted recipe must not reach os.system
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
