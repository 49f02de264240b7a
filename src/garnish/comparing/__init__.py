"""Comparing methods under one budget: arms, runs, their store and costs; ``analysis``: statistics; ``report``: output."""
