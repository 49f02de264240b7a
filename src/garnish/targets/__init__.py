"""Kinds of target: what the labels of a dense task are, one kind a file."""
