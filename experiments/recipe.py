"""The ingredients of today's recipe, any of which turns on by itself: what modern.py measures, and other files take.

Ten years of small language models stand behind them; what did not pay on images is named in modern.py, and is not here.
"""

import ml_collections

INGREDIENTS = {
    "rotary": {"model.positions": "rotary"},
    "qk_norm": {"model.qk_norm": True},
    "squared_relu": {"model.activation": "squared_relu"},
    "muon": {"optimizer.name": "muon", "optimizer.muon_learning_rate": 0.06},
    "wsd": {"optimizer.schedule": "wsd"},
}
RECIPES = {"paper": (), "modern": tuple(INGREDIENTS)}


def add_ingredients(config: ml_collections.ConfigDict, names: tuple[str, ...]) -> None:
    """Turns these ingredients on, and leaves everything else as the config has it."""
    for name in names:
        config.update_from_flattened_dict(INGREDIENTS[name])
