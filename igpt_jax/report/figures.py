"""Saving of matplotlib's figures."""

import pathlib

from matplotlib.figure import Figure

from igpt_jax.files import atomic_write, make_directory


def save_figure(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure atomically, and makes its directory; the suffix of the path chooses the format."""
    make_directory(path.parent)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=150)
