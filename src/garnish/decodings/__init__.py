"""Kinds of output: how a raw output becomes a map, and how that is painted and written; numpy alone."""
