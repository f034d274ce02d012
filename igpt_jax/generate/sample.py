"""Sampling left to right under one jit: several guessed positions a pass, and a cache that grows as the image does."""

import dataclasses
import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.errors import InputError
from igpt_jax.model.decode import decode, decoding_weights, grow_cache, init_cache
from igpt_jax.model.image_gpt import ImageGPT

SEGMENT = 128  # positions decoded before the cache grows: early ones then read a short cache
LONG_SEGMENT = 512  # on accelerators, which read fast but compile the network for each segment slowly


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a color is drawn from its logits: temperature, then top-k, then top-p."""

    temperature: float = 1.0  # 0 takes the likeliest color
    top_k: int = 0  # keep the k likeliest colors; 0 keeps all
    top_p: float = 1.0  # keep the likeliest colors until their probabilities sum to p

    def __post_init__(self):
        if self.temperature < 0:
            raise InputError(f"temperature={self.temperature} must not be negative; 0 takes the likeliest color")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k} must be 0 (all colors) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p} must lie in (0, 1]; 1 keeps all colors")

    def __call__(self, rngs_b: jax.Array, logits_bv: jax.Array) -> jax.Array:
        """Draws one token an image, each with its own key.  Returns (b,) int32."""
        if self.temperature == 0:
            return logits_bv.argmax(axis=-1).astype(jnp.int32)
        logits_bv = logits_bv / self.temperature
        if self.top_k:
            kth_b1 = jax.lax.top_k(logits_bv, self.top_k)[0][:, -1:]
            logits_bv = jnp.where(logits_bv < kth_b1, -jnp.inf, logits_bv)
        if self.top_p < 1:
            order_bv = jnp.argsort(logits_bv, axis=-1, descending=True)
            sorted_bv = jax.nn.softmax(jnp.take_along_axis(logits_bv, order_bv, axis=-1), axis=-1)
            kept_bv = jnp.cumsum(sorted_bv, axis=-1) - sorted_bv < self.top_p
            kept_bv = jnp.put_along_axis(jnp.zeros_like(kept_bv), order_bv, kept_bv, axis=-1, inplace=False)
            logits_bv = jnp.where(kept_bv, logits_bv, -jnp.inf)
        return jax.vmap(jax.random.categorical)(rngs_b, logits_bv).astype(jnp.int32)


def image_keys(seed: int, n: int) -> jax.Array:
    """One key an image: image i is the same however many are drawn beside it."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(n))


@flax.struct.dataclass
class Drawn:
    """Images, and in which pass of the network each of their tokens came about."""

    tokens: jax.Array  # (..., context) int32
    passes: jax.Array  # (..., context) int32, from 1 on in raster order; 0 where the token was given

    @property
    def tokens_per_pass(self) -> float:
        """Drawn tokens for each pass that an image took, at least 1; passes spent waiting for others do not count."""
        return float((self.passes > 0).sum() / self.passes.max(axis=-1).sum())


def fastest_window(platform: str, images: int) -> int:
    """How many positions a pass should evaluate on "tpu", "gpu" or another platform, with so many images a device.

    An accelerator evaluates a few hundred positions in about the time of one.  On a CPU a pass over eight costs little
    more than over one; beyond, arithmetic takes back what a network that is hard to guess gains.
    """
    return max(1, min(32, (256 if platform in ("tpu", "gpu") else 8) // images))


@functools.partial(jax.jit, static_argnames=("model", "sampler", "window"))
def sample(
    model: ImageGPT,
    params: dict,
    rngs_b: jax.Array,
    given_bt: jax.Array,
    sampler: Sampler = Sampler(),
    window: int = 1,
) -> Drawn:
    """Continues every image from its given first tokens to the last position.

    A token is a function of what comes before it and of the image's key and its position, from which its Gumbel noise
    comes: argmax(logits + noise).  So guesses can be checked.  A pass evaluates `window` positions of each image, the
    first after what is known and the others after guesses; it is right up to and including the first token that
    differs from its guess.  What it draws beyond are the next guesses (Jacobi iteration with fixed noise, as in
    arXiv:2510.24211); where it has drawn nothing yet, the guess is a draw from the logits of the pixel above.  Each
    image advances at its own pace, and finished ones wait for the slowest.

    The tokens do not depend on the window but for rounding: products of other shapes round otherwise, and where two
    colors tie within that, the other one may be drawn, and the image takes another course from there.  In float32
    that is rare: no token of those compared, small networks on a CPU.  In bfloat16 it is not: there about one token in
    a thousand.  Either way every token is drawn from the network's own logits for the tokens before it, so no window is
    an approximation of another.

    Args:
      rngs_b: (b,) keys, from `image_keys`.
      given_bt: (b, t) int32, raster order; t = 0 samples whole images.
      window: positions a pass; 1 draws one by one.
    Returns:
      (b, context) tokens, beginning with `given_bt`, and the passes they were drawn in.
    """
    batch, given = given_bt.shape
    context, row = model.config.context, model.config.resolution
    if sampler.top_k > model.config.vocabulary:
        raise InputError(
            f"top_k={sampler.top_k} exceeds the {model.config.vocabulary} colors of the palette; 0 keeps them all"
        )
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

    def draw(position_bw, logits_bwv):
        rngs_bw = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(rngs_b, position_bw)
        return sampler(rngs_bw.reshape(-1), logits_bwv.reshape(batch * window, -1)).reshape(batch, window)

    def advance(state):
        """One pass; a window that would reach beyond the image begins earlier, on what is known."""
        tokens_bt, passes_bt, position_b, number, cache = state
        start_b = jnp.minimum(position_b, context - window)
        at_bw = start_b[:, None] + jnp.arange(window)[None]
        guessed_bw = _read(tokens_bt, start_b, window)
        previous_bw = jnp.concatenate([_read(tokens_bt, start_b - 1, 1), guessed_bw[:, :-1]], axis=1)
        logits_bwv, cache = decode(model.config, weights, previous_bw, start_b, cache)

        unknown_bw = at_bw >= position_b[:, None]
        drawn_bw = jnp.where(unknown_bw, draw(at_bw, logits_bwv), guessed_bw)
        wrong_bw = drawn_bw != guessed_bw
        accepted_bw = unknown_bw & (jnp.cumsum(wrong_bw, axis=1) - wrong_bw == 0)
        passes_bw = jnp.where(accepted_bw, number, _read(passes_bt, start_b, window))
        below_bw = draw(at_bw + row, logits_bwv) if window > 1 else drawn_bw
        tokens_bt = _write(tokens_bt, below_bw, start_b + row)
        tokens_bt, passes_bt = _write(tokens_bt, drawn_bw, start_b), _write(passes_bt, passes_bw, start_b)
        return tokens_bt, passes_bt, position_b + accepted_bw.sum(axis=1), number + 1, cache

    tokens_bt = jnp.zeros((batch, context + row), jnp.int32)  # known ones, then guesses
    tokens_bt = tokens_bt.at[:, row : row + given].set(given_bt).at[:, :given].set(given_bt)
    tokens_bt = nn.with_logical_constraint(tokens_bt, ("batch", None))
    passes_bt, position_b = jnp.zeros_like(tokens_bt[:, :context]), jnp.full_like(tokens_bt[:, 0], given)
    number = jnp.int32(1)
    segment = SEGMENT if jax.default_backend() == "cpu" else LONG_SEGMENT
    lengths = range((given // segment + 1) * segment, context, segment)
    for length in [*(n for n in lengths if n >= given + window), context]:

        def fits(state, length=length):
            """Whether the cache has room for every window; the last one has, until all images are finished."""
            _, _, position_b, _, _ = state
            return position_b.min() < context if length == context else position_b.max() + window <= length

        state = tokens_bt, passes_bt, position_b, number, grow_cache(cache, length)
        tokens_bt, passes_bt, position_b, number, cache = jax.lax.while_loop(fits, advance, state)
    return Drawn(tokens_bt[:, :context], passes_bt)


def _read(x_bt, start_b, size):
    """`size` elements of every row from its own start on."""
    return jax.vmap(functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=size))(x_bt, start_b)


def _write(x_bt, new_bw, start_b):
    """The inverse of `_read`."""
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))(x_bt, new_bw, start_b)
