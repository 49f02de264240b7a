"""Loggers by name, beside CSV and TensorBoard: some that come with Lightning, and any Fabric logger by its class."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.errors import MissingExtraError, OptionError, one_line

if TYPE_CHECKING:
    from lightning.fabric.loggers import Logger

#: What :mod:`garnish.training.scalars` writes itself.
OWN = ("tensorboard", "csv")
#: Short name → class, module that it needs, and what to install for it.
_SHORT = {
    "wandb": ("lightning.pytorch.loggers.WandbLogger", "wandb", "wandb"),
    "mlflow": ("lightning.pytorch.loggers.MLFlowLogger", "mlflow", "mlflow"),
    "comet": ("lightning.pytorch.loggers.CometLogger", "comet_ml", "comet-ml"),
}
#: Options, one of which gets the run's log folder where the class has it.
_FOLDER = ("root_dir", "save_dir")


def check_name(name: str) -> None:
    """Raise OptionError for what is neither a known name nor a dotted one; nothing is imported."""
    if name not in OWN and name not in _SHORT and "." not in name.strip("."):
        raise OptionError(
            f"train.log: {name!r}; choose from {', '.join((*OWN, *_SHORT))}, or name the class of a Fabric logger, e.g."
            " lightning.fabric.loggers.CSVLogger"
        )


def logger_class(name: str) -> type[Logger]:
    """The class that a short or dotted name stands for.

    Raises:
        MissingExtraError: what it needs is not installed. OptionError: no such class, or another than a logger's.
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
    # only these are ever called: a recipe of someone else must not reach os.system
    if not (inspect.isclass(found) and issubclass(found, Logger)):
        raise OptionError(
            f"train.log: {name} is no class of a Fabric logger; derive it from {Logger.__module__}.Logger"
        )
    return found


def start_logger(name: str, folder: Path) -> Logger:
    """A logger, all other options of which are its defaults (many read environment variables).

    Raises:
        MissingExtraError, OptionError: as :func:`logger_class`, or it cannot be made.
    """
    made = logger_class(name)
    taken = [option for option in _FOLDER if option in inspect.signature(made).parameters]
    try:
        return made(**{option: str(folder) for option in taken[:1]})
    except Exception as error:  # of another package, which may ask a server
        raise OptionError(
            f"train.log: {name} cannot be started ({one_line(error, 160)}); set it up, or leave it out of log"
        ) from error
