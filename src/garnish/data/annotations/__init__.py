"""Formats of annotation tools: one file each, found by name; what they hold becomes labels in the readers of shapes."""
