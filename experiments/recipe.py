"""The ingredients of a modern training recipe, of which modern.py measures what each is worth.

Each works without the others, except that weight decay needs Muon, and SwiGLU takes the place of squared ReLU.  These
two are not in the recipe: weight decay helps on emoji alone, and SwiGLU on digits and photographs, by less than a
hundredth of a nat, with slower steps.  All ingredients come from work on small language models.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ml_collections

INGREDIENTS = {
    "rotary": {"model.positions": "rotary"},
    "qk_norm": {"model.qk_norm": True},
    "squared_relu": {"model.activation": "squared_relu"},
    "muon": {"optimizer.name": "muon", "optimizer.muon_learning_rate": 0.06},
    "wsd": {"optimizer.schedule": "wsd"},
    "swiglu": {"model.activation": "swiglu"},
    "weight_decay": {"optimizer.weight_decay": 0.1},  # of the matrices that Muon trains
}
RECIPES = {"paper": (), "modern": ("rotary", "qk_norm", "squared_relu", "muon", "wsd")}


def add_ingredients(config: "ml_collections.ConfigDict", names: tuple[str, ...]) -> None:
    """Turns ingredients on.

    Args:
      config: the config to change; options that belong to no named ingredient stay as they are.
      names: keys of `INGREDIENTS`.
    """
    for name in names:
        config.update_from_flattened_dict(INGREDIENTS[name])
