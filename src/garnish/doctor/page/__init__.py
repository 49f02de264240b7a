"""The page of ``garnish check``: one HTML file that holds its pictures and needs no network."""
