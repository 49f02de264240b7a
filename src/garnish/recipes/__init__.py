"""Recipes: what to train, from YAML files and command-line overrides, and the model that they describe."""
