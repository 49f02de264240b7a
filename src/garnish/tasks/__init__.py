"""Dense tasks: one file each."""
