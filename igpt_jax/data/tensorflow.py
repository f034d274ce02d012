"""TensorFlow as this package uses it: for tf.data on the host, quiet, and blind to accelerators, which JAX owns."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tensorflow_datasets as tfds

tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")
tfds.disable_progress_bar()
