"""A codec for pictures of 128x128 pixels, which an Image GPT can then learn and draw.

    python -m igpt_jax codes --config=experiments/codes.py --workdir=runs/codec

`data=emoji` (the default) needs the font of emoji.py; `data=photographs` needs nothing.  factor=8, the default, turns a
picture into 16x16 codes, and factor=4 into 32x32.  quantizer=fsq|vq.  It trains in about twenty minutes on two CPU
cores.

The ICML version of the paper trains iGPT-L on codes of 192x192 images (69.0 % in its linear probe).  Its encoder is
shallow and has a small receptive field, as this one; the sizes of its layers are not published.
"""

import ml_collections

from experiments.arguments import read_arguments
from igpt_jax.codes.config import default_codec_config


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The training of the codec.

    Raises:
      InputError: an argument is not known.
    """
    chosen = read_arguments(
        arguments, data=("emoji", "photographs"), factor=("8", "4"), quantizer=("fsq", "vq"), steps=2800
    )
    config = default_codec_config()
    config.steps = chosen["steps"]
    config.resolution = 128
    config.checkpoint_every = 500
    config.network.width = 48
    config.network.factor = int(chosen["factor"])
    config.network.quantizer = chosen["quantizer"]
    config.data.name = chosen["data"]
    config.data.emoji.side = 128
    config.data.augmentation = "pad_crop_flip" if chosen["data"] == "emoji" else "auto"
    config.data.batch_size = 16
    return config
