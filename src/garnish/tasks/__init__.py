"""Dense tasks, one per file: targets, loss, metric, decoding and file format."""
