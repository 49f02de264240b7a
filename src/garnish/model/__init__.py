"""A model: backbone, owners and decoders put together, and what it is asked for."""

from garnish.moved import names_of

__getattr__ = names_of(__name__)
