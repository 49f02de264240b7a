"""The server: many bundles on one trunk, whose requests share passes (decision 023)."""
