"""A minimal Image GPT in torch, as a careful torch user would write it, and its training step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from igpt_jax.config import ModelConfig


class MinimalImageGPT(torch.nn.Module):
    """Image GPT with RMS norms, quick GELU and `scaled_dot_product_attention`, without biases."""

    def __init__(
        self, config: ModelConfig, weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32
    ) -> None:
        """Copies the weights.

        Args:
          config: the shape.
          weights: by the names of transformers' ImageGPT.
          dtype: of activations and matmuls.
        """
        super().__init__()
        self.config, self.dtype = config, dtype
        self.weights = torch.nn.ParameterDict(
            {name.replace(".", "/"): torch.nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
        )

    def forward(self, previous_bt: torch.Tensor) -> torch.Tensor:
        """Computes logits (b, t, v) from (b, t), the token before each position."""
        h_btd = self._embed(previous_bt, slice(0, previous_bt.shape[1]))
        for layer in range(self.config.layers):
            h_btd = self._block(layer, h_btd, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self._logits(h_btd)

    @torch.no_grad()
    def draw(self, images: int, positions: int) -> torch.Tensor:
        """Samples the first positions of images, (images, positions), one at a time with a cache of keys and values."""
        c, device = self.config, self.weights["lm_head/weight"].device
        shape = (c.layers, images, c.heads, positions, c.head_dim)
        keys, values = (torch.empty(shape, dtype=self.dtype, device=device) for _ in range(2))
        token_b1 = torch.full((images, 1), c.vocabulary, device=device)
        drawn = []
        for position in range(positions):

            def attend(
                q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, position: int = position
            ) -> torch.Tensor:
                keys[layer, :, :, position : position + 1] = k
                values[layer, :, :, position : position + 1] = v
                seen = slice(0, position + 1)
                return F.scaled_dot_product_attention(q, keys[layer, :, :, seen], values[layer, :, :, seen])

            h_btd = self._embed(token_b1, slice(position, position + 1))
            for layer in range(c.layers):
                h_btd = self._block(layer, h_btd, lambda q, k, v, layer=layer: attend(q, k, v, layer))
            token_b1 = torch.multinomial(self._logits(h_btd)[:, -1].float().softmax(-1), 1)
            drawn.append(token_b1)
        return torch.cat(drawn, dim=1)

    def _weight(self, name: str) -> torch.Tensor:
        return self.weights[f"{name}/weight"].to(self.dtype)

    def _embed(self, previous_bt: torch.Tensor, positions: slice) -> torch.Tensor:
        return self._weight("transformer/wte")[previous_bt] + self._weight("transformer/wpe")[positions]

    def _norm(self, name: str, h_btd: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(h_btd, h_btd.shape[-1:], self._weight(name), 1e-5)

    def _block(self, layer: int, h_btd: torch.Tensor, attend: Callable) -> torch.Tensor:
        name = f"transformer/h/{layer}"
        b, t, d = h_btd.shape
        qkv_btf = self._norm(f"{name}/ln_1", h_btd) @ self._weight(f"{name}/attn/c_attn")
        qkv = qkv_btf.view(b, t, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        mixed_btd = attend(*qkv).transpose(1, 2).reshape(b, t, d)
        h_btd = h_btd + mixed_btd @ self._weight(f"{name}/attn/c_proj")
        up_btf = self._norm(f"{name}/ln_2", h_btd) @ self._weight(f"{name}/mlp/c_fc")
        return h_btd + (up_btf * torch.sigmoid(1.702 * up_btf)) @ self._weight(f"{name}/mlp/c_proj")

    def _logits(self, h_btd: torch.Tensor) -> torch.Tensor:
        return self._norm("transformer/ln_f", h_btd) @ self._weight("lm_head").T


def random_weights(config: ModelConfig, device: str) -> dict[str, torch.Tensor]:
    """Initializes weights: matrices from N(0, 0.02), gains of 1; float32, by the names of transformers' ImageGPT."""
    d, v = config.width, config.vocabulary
    shapes = {"transformer.wte.weight": (v + 1, d), "transformer.wpe.weight": (config.context, d)}
    for layer in range(config.layers):
        shapes |= {
            f"transformer.h.{layer}.{name}.weight": shape
            for name, shape in {
                "ln_1": (d,),
                "attn.c_attn": (d, 3 * d),
                "attn.c_proj": (d, d),
                "ln_2": (d,),
                "mlp.c_fc": (d, 4 * d),
                "mlp.c_proj": (4 * d, d),
            }.items()
        }
    shapes |= {"transformer.ln_f.weight": (d,), "lm_head.weight": (v, d)}
    return {
        name: torch.ones(shape, device=device) if len(shape) == 1 else 0.02 * torch.randn(shape, device=device)
        for name, shape in shapes.items()
    }


def previous_tokens(tokens_bt: torch.Tensor, sos: int) -> torch.Tensor:
    """The token before each position, (b, t): the start token `sos`, and then all tokens but the last."""
    start_b1 = torch.full((len(tokens_bt), 1), sos, device=tokens_bt.device)
    return torch.cat([start_b1, tokens_bt[:, :-1]], dim=1)


def cross_entropy(logits_btv: torch.Tensor, tokens_bt: torch.Tensor) -> torch.Tensor:
    """The mean negative log-likelihood of the tokens, a float32 scalar in nats per token."""
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), tokens_bt.flatten())


def trainer(
    model: torch.nn.Module, tokens_bt: torch.Tensor, sos: int, learning_rate: float, *, fused: bool = False
) -> Callable[[], float]:
    """Makes a function that takes one training step with Adam.

    Args:
      model: from the tokens before each position, (b, t), to logits (b, t, v) or an object with such `logits`.
      tokens_bt: the batch of every step, (b, t) integers.
      sos: the start token.
      learning_rate: of Adam.
      fused: whether Adam runs as one kernel.

    Returns:
      A function that takes a step and returns the loss before it, in nats per token.
    """
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)
    previous_bt = previous_tokens(tokens_bt, sos)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        output = model(previous_bt)
        loss = cross_entropy(output if isinstance(output, torch.Tensor) else output.logits, tokens_bt)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
