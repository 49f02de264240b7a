"""Data sets in tar shards, as WebDataset has them."""
