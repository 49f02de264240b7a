"""Comparing methods under one budget: arms, runs, their store, costs; ``analysis``: statistics; ``report``: output."""
