"""Files: written whole or not at all, read without trust. Nothing here needs torch."""
