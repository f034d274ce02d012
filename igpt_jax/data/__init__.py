"""Images in, color tokens out: palettes, sources, augmentations and the tf.data pipeline."""
