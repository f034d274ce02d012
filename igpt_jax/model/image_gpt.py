"""Image GPT: color tokens in; logits, features of every layer or class logits out."""

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
      config: shape, objective and arithmetic.  An "ar" model is causal: a learned start vector replaces the first
        token and the rest shift right, so the logits at position i depend on tokens 0..i-1.  A "bert" model sees
        every position that is not masked, and has neither start vector nor shift.
      normalized_features: whether features are of the norms that the blocks read, as the paper has them; False: of
        what comes into these norms.  Parameters and all other outputs are the same.
    """

    config: ModelConfig
    normalized_features: bool = True

    def setup(self):
        c = self.config

        def table(name, axes, shape, std):
            initializer = nn.with_logical_partitioning(nn.initializers.normal(std), axes)
            return all_gather_weight(self.param(name, initializer, shape), axes)

        self.token_embedding_vd = table("token_embedding", ("vocabulary", "width"), (c.vocabulary, c.width), 0.02)
        if c.positions == "learned":
            self.position_embedding_td = table("position_embedding", ("position", "width"), (c.context, c.width), 0.01)
        if c.causal:
            self.sos_d = table("sos", ("width",), (c.width,), 0.02)
        self.blocks = stack(c, pools_norm=self.normalized_features)
        self.final_norm = RMSNorm(c.dtype)
        head_std = 0.0 if c.zero_heads else 0.02
        if c.tied_head:
            self.token_head_dv = self.token_embedding_vd.T
        elif c.token_head:
            self.token_head_dv = table("token_head", ("width", "vocabulary"), (c.width, c.vocabulary), head_std)
        if c.classes:
            self.class_head_dc = table("class_head", ("width", "classes"), (c.width, c.classes), head_std)

    def __call__(self, tokens_bt: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Predicts the color of every position.

        Args:
          tokens_bt: (b, t) integers in [0, v), raster order, t at most `config.context`.
          mask: (b, t) bool, True = hidden; "bert" models only.
        Returns:
          Logits, (b, t, v) float32.
        Raises:
          InputError: another shape or dtype; a token outside [0, v).  Under jit the values of tokens are not known, and
            one outside the range is taken for the nearest inside: check them before with `check_tokens`.
        """
        n_btd, _ = self.encode(tokens_bt, mask)
        return self._token_logits(n_btd)

    def features(self, tokens_bt: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Pools what every block's attention reads, f^l = <n^l_i>_i; l = L is the final norm (paper, section 2.4).

        Without `normalized_features`, <h^l_i>_i: what the released code's author answered to have used.

        Returns (l + 1, b, d) float32.  Nothing of size (l, b, t, d) is ever kept.
        """
        h_btd, pooled_lbd = self._run_blocks(tokens_bt, mask)
        last_btd = self.final_norm(h_btd) if self.normalized_features else h_btd
        return jnp.concatenate([pooled_lbd, mean_over_positions(last_btd)[None]])

    def classify(self, tokens_bt: jax.Array, mask: jax.Array | None = None) -> tuple[jax.Array | None, jax.Array]:
        """Gives token logits (b, t, v) and, from the pooled n^l of `config.head_layer`, class logits (b, c).

        Both float32; a model without token head gives None for the first.
        """
        if not self.config.classes:
            raise InputError(
                "this model has no class head; set model.classes, or fine-tune it with objective.class_weight=1"
            )
        n_btd, pooled_lbd = self.encode(tokens_bt, mask)
        logits_btv = self._token_logits(n_btd) if self.config.token_head else None
        final = self.config.head_on_final_norm
        pooled_bd = mean_over_positions(n_btd) if final else pooled_lbd[self.config.head_layer]
        return logits_btv, pooled_bd @ self.class_head_dc

    def encode(self, tokens_bt, mask):
        """Runs embeddings, stack and final norm.  Returns n^L (b, t, d) and the pooled n^0..n^(L-1), (l, b, d)."""
        h_btd, pooled_lbd = self._run_blocks(tokens_bt, mask)
        return self.final_norm(h_btd), pooled_lbd

    def _run_blocks(self, tokens_bt, mask):
        check_tokens(self.config, tokens_bt)
        if self.config.causal and mask is not None:
            raise InputError("an ar model takes no mask; use one trained with objective bert")
        embedded_btd = self.token_embedding_vd[tokens_bt]
        if self.config.causal:
            sos_b1d = jnp.broadcast_to(self.sos_d, (tokens_bt.shape[0], 1, self.config.width))
            embedded_btd = jnp.concatenate([sos_b1d, embedded_btd[:, :-1]], axis=1)
        elif mask is not None:
            embedded_btd = jnp.where(mask[:, :, None], 0, embedded_btd)
        if self.config.positions == "learned":
            embedded_btd += self.position_embedding_td[None, : tokens_bt.shape[1]]
        return self.blocks(shard_activations(embedded_btd.astype(self.config.dtype)), None)

    def _token_logits(self, n_btd):
        if not self.config.token_head:
            raise InputError("this model has no token head, so it has features but neither likelihood nor samples")
        b, t, d = n_btd.shape
        head_dv = self.token_head_dv.astype(self.config.dtype)
        return jnp.dot(n_btd.reshape(b * t, d), head_dv, preferred_element_type=jnp.float32).reshape(b, t, -1)


def check_tokens(config: ModelConfig, tokens_bt: jax.Array | np.ndarray) -> None:
    """Raises InputError unless tokens are integers (b, t) in [0, v), t at most the context; traced ones go unread."""
    if tokens_bt.ndim != 2 or tokens_bt.shape[1] > config.context:
        raise InputError(
            f"tokens of shape {tokens_bt.shape} do not fit (batch, at most {config.context}); "
            f"set model.resolution to the side of your images"
        )
    if not jnp.issubdtype(tokens_bt.dtype, jnp.integer):
        raise InputError(f"tokens are {tokens_bt.dtype}; expected integers: encode images with the palette first")
    if isinstance(tokens_bt, jax.core.Tracer) or not tokens_bt.size:
        return
    values_bt = np.asarray(tokens_bt)  # also inside of a trace, where it is a constant
    lowest, highest = values_bt.min(), values_bt.max()
    if lowest < 0 or highest >= config.vocabulary:
        raise InputError(
            f"tokens lie in [{lowest}, {highest}], but the model knows [0, {config.vocabulary - 1}]; "
            "encode images with the palette that it was trained with"
        )


def count_parameters(config: ModelConfig) -> int:
    """Counts the parameters by shape alone; 76,571,648 for size "s"."""
    tokens_bt = jnp.zeros((1, config.context), jnp.int32)
    shapes = jax.eval_shape(lambda: ImageGPT(config).init(jax.random.key(0), tokens_bt, method="features"))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
