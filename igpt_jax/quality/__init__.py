"""How near a set of images is to another: feature networks, and distances between their features.

Array names carry their axes: b images, h and w pixels, c channels, d features.
"""
