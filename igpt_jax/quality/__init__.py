"""Distances between sets of images: feature networks, and distances between their features.

Array names end in their axes: b images, h and w pixels, c channels, d features; n images of a subset.
"""
