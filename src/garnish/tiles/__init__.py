"""Pictures in overlapping windows: which ones, how their outputs become one map, where finished rows go; no torch."""
