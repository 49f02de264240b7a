"""Pictures of any size, number of bands and depth, read by windows and written row by row, without torch."""
