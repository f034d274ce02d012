"""The convolutional encoder and decoder of a codec."""

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.codes.config import PATCH, NetworkConfig


class Encoder(nn.Module):
    """Maps pictures to latents: (b, r, r, 3) in [-1, 1] to (b, r / factor, r / factor, latent_width)."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, pictures_bhwc: jax.Array) -> jax.Array:
        """Returns the latents, float32."""
        config = self.config
        x_bhwc = nn.Dense(config.width, name="patches")(_to_patches(pictures_bhwc, PATCH))
        for stage in range(config.stages + 1):
            if stage:
                x_bhwc = nn.Dense(config.width * 2**stage, name=f"down_{stage}")(_to_patches(x_bhwc, 2))
            for block in range(config.blocks):
                x_bhwc = Block(name=f"block_{stage}_{block}")(x_bhwc)
        return nn.Dense(config.latent_width, name="latents")(nn.RMSNorm(name="norm")(x_bhwc))


class Decoder(nn.Module):
    """Maps quantized latents to pictures: the mirror image of `Encoder`."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, latents_bhwd: jax.Array) -> jax.Array:
        """Returns pictures (b, r, r, 3), float32, of which [-1, 1] is displayed."""
        config = self.config
        x_bhwc = nn.Dense(config.width * 2**config.stages, name="latents")(latents_bhwd)
        for stage in reversed(range(config.stages + 1)):
            for block in range(config.blocks):
                x_bhwc = Block(name=f"block_{stage}_{block}")(x_bhwc)
            if stage:
                channels = config.width * 2 ** (stage - 1)
                x_bhwc = _from_patches(nn.Dense(4 * channels, name=f"up_{stage}")(x_bhwc), 2)
        x_bhwc = nn.Dense(3 * PATCH**2, name="patches")(nn.RMSNorm(name="norm")(x_bhwc))
        return _from_patches(x_bhwc, PATCH)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """Returns the sum of the input and of what the convolutions make of it."""
        channels = x_bhwc.shape[-1]
        y_bhwc = nn.Conv(channels, (3, 3), name="first")(nn.silu(nn.RMSNorm(name="norm")(x_bhwc)))
        # It starts as the identity.
        return x_bhwc + nn.Conv(channels, (3, 3), name="second", kernel_init=nn.initializers.zeros)(nn.silu(y_bhwc))


def _to_patches(x_bhwc: jax.Array, side: int) -> jax.Array:
    return einops.rearrange(x_bhwc, "b (h y) (w x) c -> b h w (y x c)", y=side, x=side)


def _from_patches(x_bhwc: jax.Array, side: int) -> jax.Array:
    return einops.rearrange(x_bhwc, "b h w (y x c) -> b (h y) (w x) c", y=side, x=side)


def to_floats(images: jax.Array) -> jax.Array:
    """Converts uint8 0-255 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_levels(pictures: jax.Array) -> jax.Array:
    """Converts floats, of which [-1, 1] is displayed, to uint8 0-255."""
    return jnp.round((pictures.clip(-1, 1) + 1) * 127.5).astype(jnp.uint8)
