"""The decoders (heads), which turn feature maps into a task's output maps: one file each."""
