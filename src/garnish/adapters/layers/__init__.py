"""Adapter layers that several methods share: bottlenecks, low-rank updates, token maps."""
