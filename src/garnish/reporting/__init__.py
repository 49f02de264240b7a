"""What people are shown while something runs and after it: a live line, pages that need no network, charts, numbers."""
