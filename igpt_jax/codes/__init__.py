"""Image codes: a convolutional codec turns pictures into a grid of codes, which take the place of palette colors."""
