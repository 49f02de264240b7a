"""Frozen trunks: one file a family."""
