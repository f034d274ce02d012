"""transformers' ImageGPT, with the shape of a config of this package."""

import pathlib

import torch
import transformers

from igpt_jax.config import ModelConfig


def image_gpt(config: ModelConfig, std: float = 0.02) -> transformers.ImageGPTForCausalImageModeling:
    """Builds transformers' model without dropout, with new random matrices and with biases that stay zero.

    Args:
      config: the shape.
      std: standard deviation of the matrices of the blocks; embeddings and head have ten times that.
    """
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
    """Writes the model to a directory that `ig.load` reads, without a progress bar."""
    transformers.utils.logging.disable_progress_bar()
    peer.save_pretrained(directory)
