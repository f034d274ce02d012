"""A page in the browser that completes pictures."""
