"""Comparisons of methods under one budget: arms, their runs, their statistics, and the report."""
