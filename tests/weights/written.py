"""Random checkpoints in the two formats, written by those who own them: transformers and TensorFlow's Saver."""

import numpy as np
import torch
import transformers

from igpt_jax.data.tensorflow import tf

transformers.utils.logging.disable_progress_bar()

# Layers, width, heads, resolution, colors: three that differ everywhere.
TINY, ODD, S = (2, 24, 3, 4, 17), (3, 40, 5, 6, 9), (24, 512, 8, 32, 512)


def huggingface_config(size=TINY, **options):
    layers, width, heads, resolution, colors = size
    return transformers.ImageGPTConfig(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_positions=resolution**2,
        vocab_size=colors + 1,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        **options,
    )


def huggingface_model(size=TINY, *, biases=False, head="ForCausalImageModeling", std=0.3, **options):
    """A transformers model whose every parameter is drawn from N(0, std), biases zero where none are asked for."""
    model = getattr(transformers, f"ImageGPT{head}")(huggingface_config(size, **options)).eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, std if biases or not name.endswith(".bias") else 0, generator=rng)
    return model


def openai_tensors(size=TINY, *, objective="ar", classes=0):
    """{name: float32 array} under the names and shapes that the released code's `model` gives its variables."""
    layers, d, h, resolution, v = size
    shapes = {"wpe": (resolution**2, d), "wte": (v, d), "wtet": (v, d), "ln_f/g": (d,)}
    if objective == "ar":
        shapes["sos"] = (d,)
    if classes:
        shapes["clf/wclf"] = (classes, d)
    for i in range(layers):
        shapes |= {f"h{i}/ln_{n}/g": (d,) for n in (1, 2)}
        shapes |= {f"h{i}/attn/{name}_proj": (h, d // h, d) for name in ("q", "k", "v", "c")}
        shapes |= {f"h{i}/mlp/c_fc/w": (d, 4 * d), f"h{i}/mlp/c_proj/w": (4 * d, d)}
    rng = np.random.default_rng(0)
    return {f"model/{name}": rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def save_openai(prefix, tensors):
    """Writes the tensors as TensorFlow 1's Saver does, with the global step and an Adam slot that training leaves."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        extra = {"global_step": np.int64(7), "beta1_power": np.float32(0.9), "model/wte/Adam": np.zeros(3, np.float32)}
        variables = {name: tf.compat.v1.Variable(value, name=name) for name, value in (tensors | extra).items()}
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(prefix))


def restore_openai(prefix, shapes):
    """Restores {name: shape} into a graph's variables, as the released run.py does."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, shape) for name, shape in shapes.items()]
        tf.compat.v1.train.Saver(var_list=variables).restore(session, str(prefix))
        return dict(zip(shapes, session.run(variables), strict=True))
