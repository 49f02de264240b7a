"""Statistics of a comparison: metrics by picture, bootstrap intervals, effects against the references."""
