"""Checks and measures the library on a GPU or a TPU in a few minutes: `python -m experiments.accelerator --out=DIR`."""
