"""Images in, colour tokens out: palettes, sources, augmentations and the tf.data pipeline."""
