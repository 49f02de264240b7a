"""Results and the report of a comparison."""
