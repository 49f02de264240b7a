"""Exporting a model: graphs that run without garnish, and the proof that they do what the model does."""
