"""Figures and image sheets that show the results of a run."""
