"""Compares the speed of this package with other libraries, in the same run: `python -m experiments.benchmark`."""
