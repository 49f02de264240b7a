"""Comparing methods under one budget: arms, runs and their store, costs; statistics in ``analysis``, output in ``report``."""
