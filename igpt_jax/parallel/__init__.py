"""The device mesh, the processes on it, and plans for hardware that is absent."""
