"""Kinds of target (class ids, distances, unit vectors, binary maps), one per file, and how transforms move them."""
