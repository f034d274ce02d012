"""New images, and the rest of given ones."""
