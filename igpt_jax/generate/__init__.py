"""Sampling of new images, and completion of given ones."""
