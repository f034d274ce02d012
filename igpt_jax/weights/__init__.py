"""Trained models, from wherever they are kept."""
