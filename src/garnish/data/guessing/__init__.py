"""Guessing what a folder without a description holds: its pictures, the labels beside them, and which task each is."""
