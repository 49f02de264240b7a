"""The results of a comparison, and its report: an HTML page, ``results.json`` and ``results.csv``."""
