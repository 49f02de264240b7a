"""Seams to Ray: sweeps, bulk prediction."""
