"""Comparing methods under one budget: arms, runs, statistics, the report."""
