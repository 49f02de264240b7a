"""Checks of inputs: argument types, devices, finite tensors, and a cache of facts about tensors."""
