"""Torch models that compute what ours does: transformers' ImageGPT, and a minimal one of the same architecture."""

import pathlib

import torch
import torch.nn.functional as F
import transformers

from igpt_jax.config import ModelConfig


def image_gpt(config: ModelConfig, std: float = 0.02) -> transformers.ImageGPTForCausalImageModeling:
    """transformers' model of a config, without dropout, its matrices drawn anew; its biases are zero and stay so."""
    torch.manual_seed(0)
    peer = transformers.ImageGPTForCausalImageModeling(
        transformers.ImageGPTConfig(
            vocab_size=config.vocabulary + 1,
            n_positions=config.context,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        )
    )
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, std if "h." in name else 10 * std)
            parameter.requires_grad_(not name.endswith("bias"))
    return peer


def save(peer: transformers.PreTrainedModel, directory: str | pathlib.Path) -> None:
    """Writes the weights where `ig.load` reads them, without a word."""
    transformers.utils.logging.disable_progress_bar()
    peer.save_pretrained(directory)


class MinimalImageGPT(torch.nn.Module):
    """The architecture and nothing else: RMS norms, quick GELU, `scaled_dot_product_attention`, no biases."""

    def __init__(self, config: ModelConfig, peer: transformers.ImageGPTForCausalImageModeling):
        super().__init__()
        self.config = config
        self.weights = torch.nn.ParameterDict(
            {
                name.replace(".", "/"): torch.nn.Parameter(weight.detach().clone())
                for name, weight in peer.named_parameters()
                if not name.endswith("bias")
            }
        )

    def forward(self, previous_bt: torch.Tensor) -> torch.Tensor:
        """Logits (b, t, v), from each position's token before it."""
        w, heads = self.weights, self.config.heads
        b, t = previous_bt.shape
        h_btd = w["transformer/wte/weight"][previous_bt] + w["transformer/wpe/weight"][:t]
        for layer in range(self.config.layers):
            name = f"transformer/h/{layer}"
            n_btd = F.rms_norm(h_btd, h_btd.shape[-1:], w[f"{name}/ln_1/weight"], 1e-5)
            qkv = (n_btd @ w[f"{name}/attn/c_attn/weight"]).view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed_bhtk = F.scaled_dot_product_attention(*qkv, is_causal=True)
            h_btd = h_btd + mixed_bhtk.transpose(1, 2).reshape(b, t, -1) @ w[f"{name}/attn/c_proj/weight"]
            n_btd = F.rms_norm(h_btd, h_btd.shape[-1:], w[f"{name}/ln_2/weight"], 1e-5)
            up_btf = n_btd @ w[f"{name}/mlp/c_fc/weight"]
            h_btd = h_btd + (up_btf * torch.sigmoid(1.702 * up_btf)) @ w[f"{name}/mlp/c_proj/weight"]
        n_btd = F.rms_norm(h_btd, h_btd.shape[-1:], w["transformer/ln_f/weight"], 1e-5)
        return n_btd @ w["lm_head/weight"].T


def trainer(model: torch.nn.Module, tokens_bt: torch.Tensor, sos: int, learning_rate: float):
    """A function that takes an Adam step on the tokens, after `sos`, and returns the loss before it, nats per token."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), eps=1e-8)
    previous_bt = torch.cat([torch.full((len(tokens_bt), 1), sos), tokens_bt[:, :-1]], dim=1)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        output = model(previous_bt)
        logits_btv = output if isinstance(output, torch.Tensor) else output.logits
        loss = F.cross_entropy(logits_btv.flatten(0, 1), tokens_bt.flatten())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
