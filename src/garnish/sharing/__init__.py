"""Bundles to the Hugging Face Hub and from it: pushing with a card, and pulling."""
