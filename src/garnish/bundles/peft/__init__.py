"""PEFT's format, written and read."""
