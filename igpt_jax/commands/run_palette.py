"""Which palette a run uses: the one of its workdir, of what it starts from, of a file, or a fit to its images."""

import typing

from igpt_jax.data import kmeans
from igpt_jax.data.augment import augmentations
from igpt_jax.data.colors import count_colors
from igpt_jax.data.palette import Palette
from igpt_jax.data.records import TokenSource
from igpt_jax.data.tokenizer import Codec, Tokenizer, load_tokenizer, tokenizer_file
from igpt_jax.errors import InputError
from igpt_jax.parallel.processes import broadcast_from_primary, is_primary_process
from igpt_jax.train.workdir_lock import CONFIG

if typing.TYPE_CHECKING:
    from igpt_jax.commands.run import Run


def choose_palette(run: "Run") -> Tokenizer:
    """Returns the palette that the run's options and workdir name, or fits one to training pixels.

    Every process gets the colors that the primary process has.

    Raises:
      InputError: two of the places that name a palette disagree, or it has not `model.vocabulary` colors.
    """
    known = _named_palettes(run)
    (name, palette), *others = known.items() or [("the fit", _fit_palette(run))]
    for other_name, other in others:
        if other != palette:
            raise InputError(
                f"{name} has the palette {palette.hash}, but {other_name} has {other.hash}; use one palette for both, "
                "and another --workdir for another palette"
            )
    vocabulary = run.config.model.vocabulary
    if len(palette) != vocabulary:
        raise InputError(
            f"the palette has {len(palette)} colors, but model.vocabulary={vocabulary}; "
            f"set model.vocabulary={len(palette)} or another palette"
        )
    if isinstance(palette, Codec):
        return palette  # every process has read the same file
    agreed = Palette(broadcast_from_primary(palette.colors))
    return palette if agreed == palette else agreed  # the one that was loaded knows where its table lies


def _named_palettes(run: "Run") -> dict[str, Tokenizer]:
    """The palettes and codecs that are given, by the names of their places."""
    config, path = run.config, tokenizer_file(run.workdir)
    palettes: dict[str, Tokenizer] = {}
    if path:
        palettes[str(path)] = load_tokenizer(path)
    begun = path and (run.workdir / CONFIG).exists()  # from then on, the workdir's palette is the run's
    if not begun and run.origin and run.origin.palette:
        palettes[f"initialize_from={config.initialize_from}"] = run.origin.palette
    if not begun and config.continue_from:
        _, palettes[f"continue_from={config.continue_from}"] = run.continued
    if isinstance(run.train_source, TokenSource) and run.train_source.palette:
        palettes[config.data.name] = run.train_source.palette
    if config.palette.path:
        palettes[f"palette.path={config.palette.path}"] = load_tokenizer(config.palette.path)
    return palettes


def _fit_palette(run: "Run") -> Palette:
    config = run.config
    if run.origin:
        raise InputError(
            f"initialize_from={config.initialize_from} does not say which colors its tokens are; set palette.path, "
            "such as to kmeans_centers.npy"
        )
    if isinstance(run.train_source, TokenSource):
        raise InputError(f"data.name={config.data.name} does not say which colors its tokens are; set palette.path")
    colors, counts = count_colors(
        run.train_source,
        augmentations(config.data, config.model.resolution)[1],
        pixels=config.palette.pixels,
        seed=config.seed,
        max_skipped=config.data.tolerated,
    )
    palette, report = kmeans.fit(
        colors, config.model.vocabulary, counts=counts, seed=config.seed, iterations=config.palette.iterations
    )
    if is_primary_process():
        print(f"palette: {report.describe(palette)}")
    return palette
