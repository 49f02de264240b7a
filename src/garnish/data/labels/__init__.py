"""From the files of labels to targets."""

from garnish.moved import names_of

__getattr__ = names_of(__name__)
