"""Streaming metrics of dense tasks: confusion matrices, the boundary benchmark, precision and recall, Δm."""
