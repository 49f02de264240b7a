"""Data sets: folders of pictures with labels, published layouts, procedural scenes, augmentation and batches."""
