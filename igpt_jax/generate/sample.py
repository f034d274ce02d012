"""Autoregressive sampling under one jit, with several guessed positions per pass and a cache that grows."""

import dataclasses
import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.errors import InputError
from igpt_jax.model.decode import Cache, decode, decoding_weights, grow_cache, init_cache
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.types import Params

# Positions decoded before the cache grows, so that early positions read a short cache. On accelerators, which read a
# long cache fast, but take long to compile the network for each cache length, segments are long.
SEGMENT, LONG_SEGMENT = 128, 512

# What a pass reads and returns: tokens_bt, passes_bt, position_b, the number of the pass, and the cache.
_State = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Cache]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a color is sampled from its logits: temperature, then top-k, then top-p.

    Raises:
      InputError: an option is out of range.
    """

    temperature: float = 1.0  # divides the logits; 0 takes the likeliest color
    top_k: int = 0  # keep the k likeliest colors; 0 keeps all
    top_p: float = 1.0  # keep the likeliest colors until their probabilities sum to p

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise InputError(f"temperature={self.temperature} must not be negative; 0 takes the likeliest color")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k} must be 0 (all colors) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p} must lie in (0, 1]; 1 keeps all colors")

    def check(self, vocabulary: int) -> None:
        """Raises InputError if `top_k` is larger than the vocabulary."""
        if self.top_k > vocabulary:
            raise InputError(f"top_k={self.top_k} exceeds the {vocabulary} colors of the palette; 0 keeps them all")

    def __call__(self, rngs_b: jax.Array, logits_bv: jax.Array) -> jax.Array:
        """Samples one token per image, each with its own key.

        Args:
          rngs_b: (b,) keys.
          logits_bv: (b, v) float32.

        Returns:
          (b,) int32 in [0, v).
        """
        if self.temperature == 0:
            return logits_bv.argmax(axis=-1).astype(jnp.int32)
        logits_bv = logits_bv / self.temperature
        if self.top_k:
            kth_b1 = jax.lax.top_k(logits_bv, self.top_k)[0][:, -1:]
            logits_bv = jnp.where(logits_bv < kth_b1, -jnp.inf, logits_bv)
        if self.top_p < 1:
            order_bv = jnp.argsort(logits_bv, axis=-1, descending=True)
            sorted_bv = jax.nn.softmax(jnp.take_along_axis(logits_bv, order_bv, axis=-1), axis=-1)
            kept_bv = jnp.cumsum(sorted_bv, axis=-1) - sorted_bv < self.top_p  # the likeliest is always kept
            kept_bv = jnp.put_along_axis(jnp.zeros_like(kept_bv), order_bv, kept_bv, axis=-1, inplace=False)
            logits_bv = jnp.where(kept_bv, logits_bv, -jnp.inf)
        return jax.vmap(jax.random.categorical)(rngs_b, logits_bv).astype(jnp.int32)


def image_keys(seed: int, n: int) -> jax.Array:
    """Returns one key per image, (n,). The key of image i depends on the seed and i alone, not on n."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(n))


@flax.struct.dataclass
class Drawn:
    """Sampled images, and the pass of the network in which each of their tokens was sampled."""

    # Both are jax arrays, or NumPy's from `complete`.
    tokens: Any  # (..., context) int32
    # (..., context) int32: the first pass is 1, and they never decrease in raster order; 0 for tokens that were given
    passes: Any

    @property
    def tokens_per_pass(self) -> float:
        """Sampled tokens per pass, at least 1, on average; passes spent waiting for other images do not count."""
        return float((self.passes > 0).sum() / self.passes.max(axis=-1).sum())


def fastest_window(platform: str, images: int) -> int:
    """Chooses how many positions a pass should evaluate, for `sample`.

    An accelerator evaluates a few hundred positions in about the time of one. On a CPU, four positions of one image
    take less time than one, since XLA multiplies a single row slowly. With two or more images, further positions cost
    more arithmetic than correct guesses save (`python -m experiments.benchmark windows`).

    Args:
      platform: JAX's name: "tpu", "gpu" or "cpu".
      images: per device, at least 1.

    Returns:
      1 to 32.
    """
    if platform in ("tpu", "gpu"):
        return max(1, min(32, 256 // images))
    return 4 if images == 1 else 1


@functools.partial(jax.jit, static_argnames=("model", "sampler", "window"))
def sample(
    model: ImageGPT,
    params: Params,
    rngs_b: jax.Array,
    given_bt: jax.Array,
    sampler: Sampler = Sampler(),
    window: int = 1,
) -> Drawn:
    """Continues every image from its given first tokens to the last position.

    A token is argmax(logits + noise). Its Gumbel noise depends on the image's key and the token's position alone, so a
    token is a deterministic function of the tokens before it, and guesses can be checked. A pass evaluates `window`
    positions of each image: the first one follows known tokens, and the others follow guesses. Its tokens are correct
    up to and including the first one that differs from its guess. Its later tokens are the next pass's guesses (Jacobi
    iteration with fixed noise). Where no pass has sampled yet, the guess is sampled from the logits of the pixel above.
    Each image advances at its own pace, and finished images wait for the slowest one.

    The tokens do not depend on the window, except for rounding. Matmuls of other shapes round differently, and where
    two colors tie within rounding, the other color may be chosen, which changes the rest of the image. In float32 this
    is rare: it happened to none of the tokens compared, with small networks on a CPU. In bfloat16 it happened to about
    one token in a thousand. In either case every token is sampled from the network's own logits for the tokens before
    it, so no window is an approximation of another.

    Args:
      model: an autoregressive model.
      params: its parameters.
      rngs_b: (b,) keys, from `image_keys`.
      given_bt: (b, t) int32 in raster order, with t below the context; t = 0 samples whole images.
      sampler: how a color is sampled from its logits.
      window: positions per pass, at least 1; with 1, positions are sampled one by one.

    Returns:
      (b, context) tokens, beginning with `given_bt`, and the passes in which they were sampled.

    Raises:
      InputError: the model is a BERT model or has no token head; or top-k, the given tokens or the window do not fit.

    Reference:
      arXiv:2510.24211, for Jacobi iteration with fixed noise.
    """
    batch, given = given_bt.shape
    context, row = model.config.context, model.config.resolution
    sampler.check(model.config.vocabulary)
    if given >= context:
        raise InputError(f"{given} positions are given and the image has {context}; give fewer, to leave some to draw")
    if window < 1:
        raise InputError(f"window={window} must be at least 1, which draws position by position")
    window = min(window, context - given)
    weights = decoding_weights(model.config, params)
    cache = init_cache(model.config, batch, given)
    if given:
        previous_bt = nn.with_logical_constraint(jnp.pad(given_bt[:, :-1], ((0, 0), (1, 0))), ("batch", None))
        _, cache = decode(model.config, weights, previous_bt, jnp.zeros(batch, jnp.int32), cache)

    def draw(position_bw: jax.Array, logits_bwv: jax.Array) -> jax.Array:
        rngs_bw = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(rngs_b, position_bw)
        return sampler(rngs_bw.reshape(-1), logits_bwv.reshape(batch * window, -1)).reshape(batch, window)

    def advance(state: _State) -> _State:
        """Runs one pass. A window that would reach beyond the image begins earlier, at known tokens."""
        tokens_bt, passes_bt, position_b, number, cache = state
        start_b = jnp.minimum(position_b, context - window)
        position_bw = start_b[:, None] + jnp.arange(window)[None]
        guessed_bw = _read(tokens_bt, start_b, window)
        previous_bw = jnp.concatenate([_read(tokens_bt, start_b - 1, 1), guessed_bw[:, :-1]], axis=1)
        logits_bwv, cache = decode(model.config, weights, previous_bw, start_b, cache)

        unknown_bw = position_bw >= position_b[:, None]
        drawn_bw = jnp.where(unknown_bw, draw(position_bw, logits_bwv), guessed_bw)
        wrong_bw = drawn_bw != guessed_bw
        # A token is correct if all tokens before it in the window equal their guesses.
        accepted_bw = unknown_bw & (jnp.cumsum(wrong_bw, axis=1) - wrong_bw == 0)
        passes_bw = jnp.where(accepted_bw, number, _read(passes_bt, start_b, window))
        # First guesses for the pixels one row below, from the same logits but with the noise of their own positions.
        below_bw = draw(position_bw + row, logits_bwv) if window > 1 else drawn_bw
        tokens_bt = _write(tokens_bt, below_bw, start_b + row)
        tokens_bt, passes_bt = _write(tokens_bt, drawn_bw, start_b), _write(passes_bt, passes_bw, start_b)
        return tokens_bt, passes_bt, position_b + accepted_bw.sum(axis=1), number + 1, cache

    # Known tokens, then guesses. A row beyond the image takes the guesses for pixels below the last row.
    tokens_bt = jnp.zeros((batch, context + row), jnp.int32)
    tokens_bt = tokens_bt.at[:, row : row + given].set(given_bt).at[:, :given].set(given_bt)
    tokens_bt = nn.with_logical_constraint(tokens_bt, ("batch", None))
    passes_bt, position_b = jnp.zeros_like(tokens_bt[:, :context]), jnp.full_like(tokens_bt[:, 0], given)
    number = jnp.int32(1)
    segment = SEGMENT if jax.default_backend() == "cpu" else LONG_SEGMENT
    lengths = range((given // segment + 1) * segment, context, segment)
    for length in [*(n for n in lengths if n >= given + window), context]:

        def fits(state: _State, length: int = length) -> jax.Array:
            """Whether every window fits into the cache; in the last segment: whether an image is unfinished."""
            _, _, position_b, _, _ = state
            return position_b.min() < context if length == context else position_b.max() + window <= length

        state = tokens_bt, passes_bt, position_b, number, grow_cache(cache, length)
        tokens_bt, passes_bt, position_b, number, cache = jax.lax.while_loop(fits, advance, state)
    return Drawn(tokens_bt[:, :context], passes_bt)


def _read(x_bt: jax.Array, start_b: jax.Array, size: int) -> jax.Array:
    """Reads `size` elements of every row, from the row's own start on."""
    return jax.vmap(functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=size))(x_bt, start_b)


def _write(x_bt: jax.Array, new_bw: jax.Array, start_b: jax.Array) -> jax.Array:
    """Overwrites elements of every row, from the row's own start on."""
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))(x_bt, new_bw, start_b)
