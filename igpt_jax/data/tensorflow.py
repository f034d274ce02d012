"""TensorFlow, set up for tf.data on the host only: quiet, and without access to the accelerators, which JAX uses."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # prints a notice, and does not help tf.data

import tensorflow as tf
import tensorflow_datasets as tfds

tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")
tfds.disable_progress_bar()
