"""Procedural scenes: a small ray caster that renders pictures with exact labels of five tasks."""

from garnish.moved import names_of

__getattr__ = names_of(__name__)
