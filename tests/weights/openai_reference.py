"""The released TensorFlow graph's equations in numpy, on its own variables: its names, axis orders and masks."""

import numpy as np


def norm(x, g):
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5) * g


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def forward(tensors, x, masked=None):
    """Generative logits (b, s, v) and class logits (b, c) or None; float64.

    x: (b, s) tokens.  masked: (b, s) bool for a model without `model/sos`, True where the embedding is zeroed.
    """
    p = {name.removeprefix("model/"): np.asarray(value, np.float64) for name, value in tensors.items()}
    h = p["wte"][x]
    if "sos" in p:
        h = np.concatenate([np.broadcast_to(p["sos"], h[:, :1].shape), h[:, :-1]], axis=1)
    else:
        h = h * ~masked[..., None]
    s = x.shape[1]
    h = h + p["wpe"][:s]
    layer = 0
    while f"h{layer}/ln_1/g" in p:
        block = {name.removeprefix(f"h{layer}/"): value for name, value in p.items() if name.startswith(f"h{layer}/")}
        n = norm(h, block["ln_1/g"])
        q, k, v = (np.einsum("bsf,hef->bhse", n, block[f"attn/{name}_proj"]) for name in "qkv")
        w = np.einsum("bhse,bhte->bhst", q, k) / np.sqrt(v.shape[-1])
        if "sos" in p:
            visible = np.tri(s)
            w = w * visible - 1e10 * (1 - visible)
        a = np.einsum("bhst,bhte->bhse", softmax(w), v)
        h = h + np.einsum("bhse,hef->bsf", a, block["attn/c_proj"])
        u = norm(h, block["ln_2/g"]) @ block["mlp/c_fc/w"]
        h = h + (u / (1 + np.exp(-1.702 * u))) @ block["mlp/c_proj/w"]
        layer += 1
    h = norm(h, p["ln_f/g"])
    classes = h.mean(1) @ p["clf/wclf"].T if "clf/wclf" in p else None
    return h @ p["wtet"].T, classes
