"""Comparing methods under one budget: arms, runs and their store, costs; statistics and the report in sub-rooms."""
