"""What to train, as YAML and words of the command line have it."""
