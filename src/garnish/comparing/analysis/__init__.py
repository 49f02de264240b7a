"""What the runs of a comparison say: totals, statistics, effects."""
