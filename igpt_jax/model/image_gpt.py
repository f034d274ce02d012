"""Image GPT: color tokens in; logits, features of every layer or class logits out."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.transformer import RMSNorm, all_gather_weight, mean_over_positions, shard_activations, stack


class ImageGPT(nn.Module):
    """The transformer of Generative Pretraining from Pixels, with the released code's architecture.

    Attributes:
      config: shape, objective and arithmetic. An "ar" model is causal: a learned start vector replaces the first token
        and the other tokens shift right by one, so the logits at position i depend on tokens 0..i-1. A "bert" model
        attends to every position that is not masked, and has neither start vector nor shift.
      normalized_features: whether a layer's features are taken after the norm that its block reads, as in the paper;
        False: before that norm. Parameters and all other outputs are the same.
    """

    config: ModelConfig
    normalized_features: bool = True

    def setup(self) -> None:
        """Declares embeddings, blocks, final norm and heads."""
        c = self.config

        def table(name: str, axes: tuple[str, ...], shape: tuple[int, ...], std: float) -> jax.Array:
            initializer: Any = nn.with_logical_partitioning(nn.initializers.normal(std), axes)  # Flax unboxes its value
            return all_gather_weight(self.param(name, initializer, shape), axes)

        # The released code's initial weights.
        self.token_embedding_vd = table("token_embedding", ("vocabulary", "width"), (c.vocabulary, c.width), 0.02)
        if c.positions == "learned":
            self.position_embedding_td = table("position_embedding", ("position", "width"), (c.context, c.width), 0.01)
        if c.causal:
            self.sos_d = table("sos", ("width",), (c.width,), 0.02)
        self.blocks = stack(c, pools_norm=self.normalized_features)
        self.final_norm = RMSNorm(c.dtype)
        # With heads of zero, an untrained model predicts all colors and classes alike: its loss starts at ln(v), ln(c).
        head_std = 0.0 if c.zero_heads else 0.02
        if c.tied_head:
            self.token_head_dv = self.token_embedding_vd.T
        elif c.token_head:
            self.token_head_dv = table("token_head", ("width", "vocabulary"), (c.width, c.vocabulary), head_std)
        if c.classes:
            self.class_head_dc = table("class_head", ("width", "classes"), (c.width, c.classes), head_std)

    def __call__(self, tokens_bt: jax.Array, mask_bt: jax.Array | None = None) -> jax.Array:
        """Predicts the color of every position.

        Args:
          tokens_bt: (b, t) integers in [0, v), raster order, t at most `config.context`.
          mask_bt: (b, t) bool, True = hidden; "bert" models only.

        Returns:
          Logits, (b, t, v) float32.

        Raises:
          InputError: `tokens_bt` have another shape or dtype, or a token lies outside [0, v). Under jit the values are
            not known, and a token outside the range reads another token's embedding; call `check_tokens` before.
        """
        n_btd, _ = self.encode(tokens_bt, mask_bt)
        return self._token_logits(n_btd)

    def features(self, tokens_bt: jax.Array, mask_bt: jax.Array | None = None) -> jax.Array:
        """Computes the features of every layer in one forward pass: f^l, the mean of n^l over positions.

        n^l is the norm that block l's attention reads, and n^L is the final norm. Without `normalized_features`, f^l is
        the mean of h^l, which the paper's first author reports to have used (openai/image-gpt, issue 12).

        Args:
          tokens_bt: as for `__call__`.
          mask_bt: as for `__call__`.

        Returns:
          (l + 1, b, d) float32. Nothing of size (l, b, t, d) is ever in memory.

        Raises:
          InputError: as for `__call__`.

        Reference:
          The paper, section 2.4.
        """
        h_btd, pooled_lbd = self._run_blocks(tokens_bt, mask_bt)
        last_btd = self.final_norm(h_btd) if self.normalized_features else h_btd
        return jnp.concatenate([pooled_lbd, mean_over_positions(last_btd)[None]])

    def classify(self, tokens_bt: jax.Array, mask_bt: jax.Array | None = None) -> tuple[jax.Array | None, jax.Array]:
        """Computes token logits and class logits in one forward pass.

        Args:
          tokens_bt: as for `__call__`.
          mask_bt: as for `__call__`.

        Returns:
          Token logits, (b, t, v) float32, or None for a model without token head; and class logits, (b, c) float32,
          which the class head reads from the pooled n^l of layer `config.head_layer`.

        Raises:
          InputError: the model has no class head; or as for `__call__`.

        Reference:
          The paper, section 2.3.
        """
        if not self.config.classes:
            raise InputError(
                "this model has no class head; set model.classes, or fine-tune it with objective.class_weight=1"
            )
        n_btd, pooled_lbd = self.encode(tokens_bt, mask_bt)
        logits_btv = self._token_logits(n_btd) if self.config.token_head else None
        final = self.config.head_on_final_norm
        pooled_bd = mean_over_positions(n_btd) if final else pooled_lbd[self.config.head_layer]
        return logits_btv, pooled_bd @ self.class_head_dc

    def encode(self, tokens_bt: jax.Array, mask_bt: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Runs embeddings, blocks and final norm.

        Args:
          tokens_bt: as for `__call__`.
          mask_bt: as for `__call__`.

        Returns:
          n^L, (b, t, d) in the compute type; and the pooled n^0..n^(L-1), (l, b, d) float32.

        Raises:
          InputError: as for `__call__`.
        """
        h_btd, pooled_lbd = self._run_blocks(tokens_bt, mask_bt)
        return self.final_norm(h_btd), pooled_lbd

    def _run_blocks(self, tokens_bt: jax.Array, mask_bt: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Embeds the tokens and runs all blocks: the last h, and the pooled features of every block's input."""
        check_tokens(self.config, tokens_bt)
        if self.config.causal and mask_bt is not None:
            raise InputError("an ar model takes no mask; use a model trained with objective.name=bert")
        embedded_btd = self.token_embedding_vd[tokens_bt]
        if self.config.causal:
            # Shift right by one, so that position i, which attends to positions 0..i, has seen tokens 0..i-1 and
            # predicts token i. The last token is only ever predicted.
            sos_b1d = jnp.broadcast_to(self.sos_d, (tokens_bt.shape[0], 1, self.config.width))
            embedded_btd = jnp.concatenate([sos_b1d, embedded_btd[:, :-1]], axis=1)
        elif mask_bt is not None:
            # A masked position has no mask token: its embedding is zero, and only its position remains (section 2.1).
            embedded_btd = jnp.where(mask_bt[:, :, None], 0, embedded_btd)
        if self.config.positions == "learned":
            embedded_btd += self.position_embedding_td[None, : tokens_bt.shape[1]]
        return self.blocks(shard_activations(embedded_btd.astype(self.config.dtype)), None)

    def _token_logits(self, n_btd: jax.Array) -> jax.Array:
        if not self.config.token_head:
            raise InputError("this model has no token head, so it has features but neither likelihood nor samples")
        b, t, d = n_btd.shape
        # One matmul over all positions: XLA's gradient is slower on a CPU if the batch axis stays apart (see `Linear`).
        head_dv = self.token_head_dv.astype(self.config.dtype)
        return jnp.dot(n_btd.reshape(b * t, d), head_dv, preferred_element_type=jnp.float32).reshape(b, t, -1)


def check_tokens(config: ModelConfig, tokens_bt: jax.Array | np.ndarray) -> None:
    """Checks that tokens are (b, t) integers in [0, v), with t at most `config.context`.

    The values of traced arrays, under jit, are not known and not checked.

    Raises:
      InputError: a token lies outside [0, v), or the shape or the dtype does not fit.
    """
    if tokens_bt.ndim != 2 or tokens_bt.shape[1] > config.context:
        raise InputError(
            f"tokens of shape {tokens_bt.shape} do not fit (batch, at most {config.context}); "
            "set model.resolution to the side of your images"
        )
    if not jnp.issubdtype(tokens_bt.dtype, jnp.integer):
        raise InputError(f"tokens are {tokens_bt.dtype}; expected integers: encode images with the palette first")
    if isinstance(tokens_bt, jax.core.Tracer) or not tokens_bt.size:
        return
    values_bt = np.asarray(tokens_bt)  # unlike a jnp operation, it gives values even while a function is being traced
    lowest, highest = values_bt.min(), values_bt.max()
    if lowest < 0 or highest >= config.vocabulary:
        raise InputError(
            f"tokens lie in [{lowest}, {highest}], but the model knows [0, {config.vocabulary - 1}]; "
            "encode images with the palette that it was trained with"
        )


def count_parameters(config: ModelConfig) -> int:
    """Counts the parameters without allocating them: 76,571,648 for size "s"."""
    tokens_bt = jnp.zeros((1, config.context), jnp.int32)
    shapes = jax.eval_shape(lambda: ImageGPT(config).init(jax.random.key(0), tokens_bt, method="features"))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
