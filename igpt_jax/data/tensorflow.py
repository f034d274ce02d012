"""TensorFlow as this package uses it: for tf.data on the host, quiet, and blind to accelerators, which JAX owns."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # of no use to tf.data, and noisy

import tensorflow as tf
import tensorflow_datasets as tfds

tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")
tfds.disable_progress_bar()
