"""Label readers, which turn label files into targets: one reader per file."""

from garnish.moved import names_of

__getattr__ = names_of(__name__)
