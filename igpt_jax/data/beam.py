"""Writes tokens on many machines, as an Apache Beam pipeline: each shard is one task."""

import pathlib
import shlex
from typing import Any, Protocol

from igpt_jax.data.token_shards import Stream, begin, finish, missing, write_shard
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.errors import InputError
from igpt_jax.storage import as_path


class Work(Protocol):
    """What the machines are sent; it must be picklable."""

    def images(self) -> dict[str, int]:
        """How many images each split has."""

    def stream(self, split: str) -> Stream:
        """The images of a split as tokens."""


def write_tokens_with_beam(
    directory: pathlib.Path, palette: Tokenizer, facts: dict[str, Any], work: Work, options: str
) -> None:
    """Writes the same files as `token_shards.write_tokens`.  After an interruption, it writes the missing shards.

    Args:
      directory: where to write; every machine must see it, so on a cluster it is in a bucket.
      palette: the palette or codec that encodes the images.
      facts: how the tokens are made, as JSON values.
      work: opens the images on every machine.
      options: Beam's pipeline options, such as "--runner=DataflowRunner --region=us-central1".

    Raises:
      InputError: Beam is not installed, a task failed, or as for `write_tokens`.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(f"--beam needs Apache Beam ({error}): pip install 'igpt_jax[beam]'") from error
    begin(directory, palette, facts, work.images())
    tasks, place = missing(directory), str(directory)
    print(f"{len(tasks)} shards to write", flush=True)
    try:
        with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
            shards = pipeline | beam.Create(tasks) | beam.Reshuffle()
            shards | beam.MapTuple(lambda split, i: write_shard(as_path(place), split, i, work.stream(split)))
    except Exception as error:  # of the runner, which may be any
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the pipeline failed: {reason}; run the same command again to go on") from error
    finish(directory)
