"""Bundles (saved models) and checkpoints: writing, reading, joining and merging them; PEFT's format in ``peft``."""
