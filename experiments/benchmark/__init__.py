"""Ours beside what people use now, measured in turns in the same run: `python -m experiments.benchmark`."""
