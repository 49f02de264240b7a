"""Procedural scenes with exact labels."""

from garnish.moved import names_of

__getattr__ = names_of(__name__)
