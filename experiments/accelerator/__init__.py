"""What a GPU or TPU does with this code, in a few minutes: `python -m experiments.accelerator --out=DIR`."""
