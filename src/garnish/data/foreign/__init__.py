"""Descriptions of data that other programs read: one file each, found by the keys that they have."""
