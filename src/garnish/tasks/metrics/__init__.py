"""Metrics of dense tasks, streamed."""
