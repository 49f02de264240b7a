"""Training and evaluation: the loop, its options, losses, checkpoints, cached features, logs and metrics."""
