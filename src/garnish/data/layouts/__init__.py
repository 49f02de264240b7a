"""Layouts of published data sets (ADE20K, Cityscapes and others), one per file."""
