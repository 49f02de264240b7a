"""Adapter methods: one file a method or tight family."""
