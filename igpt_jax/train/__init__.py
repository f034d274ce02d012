"""Optimizer, train state and step, checkpoints, metrics, and the loop that joins them."""
