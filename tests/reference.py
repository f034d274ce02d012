"""Image GPT in numpy, float64, position by position, written from the paper's and the released code's equations.

An independent witness: it shares no code, no layout and no order of operations with the package.
"""

import numpy as np


def norm(x, gain):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


ACTIVATIONS = {
    "quick_gelu": lambda u: u / (1 + np.exp(-1.702 * u)),
    "squared_relu": lambda u: np.where(u > 0, u * u, 0),
}


def forward(params, tokens, heads, objective, mask=None, normalized=True, activation="quick_gelu"):
    """Logits (t, v) and features (l + 1, d) of one square image; params as the package's tree.

    Biases, norms of queries and keys, and a gate are used where present; positions are rotary where no vectors of
    theirs are.  activation: of an MLP without a gate.
    """
    p = {path: np.asarray(leaf, np.float64) for path, leaf in _flatten(params)}
    t, d = len(tokens), p["token_embedding"].shape[1]
    h = np.zeros((t, d))
    for i in range(t):
        if objective == "ar":
            h[i] = p["sos"] if i == 0 else p["token_embedding"][tokens[i - 1]]
        elif mask is None or not mask[i]:
            h[i] = p["token_embedding"][tokens[i]]
        if "position_embedding" in p:
            h[i] += p["position_embedding"][i]

    features = []
    for layer in range(p["blocks/attention_norm/gain"].shape[0]):
        block = {path.removeprefix("blocks/"): leaf[layer] for path, leaf in p.items() if path.startswith("blocks/")}
        n = norm(h, block["attention_norm/gain"])
        features.append((n if normalized else h).mean(0))
        h = h + _attention(block, n, heads, objective == "ar", rotary="position_embedding" not in p)
        m = norm(h, block["mlp_norm/gain"])
        u = m @ block["mlp/up/kernel"] + block.get("mlp/up/bias", 0)
        if "mlp/gate/kernel" in block:
            gate = m @ block["mlp/gate/kernel"] + block.get("mlp/gate/bias", 0)
            u = gate / (1 + np.exp(-gate)) * u
        else:
            u = ACTIVATIONS[activation](u)
        h = h + u @ block["mlp/down/kernel"] + block.get("mlp/down/bias", 0)
    n = norm(h, p["final_norm/gain"])
    features.append((n if normalized else h).mean(0))
    return n @ p["token_head"], np.stack(features)


def _attention(block, n, heads, causal, rotary):
    t, d = n.shape
    out, no_bias = np.zeros((t, d)), np.zeros((heads, 1))
    for head in range(heads):
        q, k, v = (
            n @ block[f"attention/{name}/kernel"][:, head] + block.get(f"attention/{name}/bias", no_bias)[head]
            for name in ("query", "key", "value")
        )
        if "attention/query_norm/gain" in block:
            q, k = norm(q, block["attention/query_norm/gain"]), norm(k, block["attention/key_norm/gain"])
        if rotary:
            q = np.stack([turned(q[i], i, round(t**0.5)) for i in range(t)])
            k = np.stack([turned(k[i], i - causal, round(t**0.5)) for i in range(t)])
        for i in range(t):
            seen = i + 1 if causal else t
            weights = softmax(k[:seen] @ q[i] / np.sqrt(d // heads))
            out[i] += (weights @ v[:seen]) @ block["attention/out/kernel"][head]
    return out + block.get("attention/out/bias", 0)


def turned(x, pixel, side):
    """Component i and its partner, half a head on, as a complex number times exp(i · coordinate · frequency)."""
    row, column = (-1, -1) if pixel < 0 else (pixel // side, pixel % side)
    pairs = len(x) // 2
    z = x[:pairs] + 1j * x[pairs:]
    for i in range(pairs):
        coordinate, number = (row, i) if i < pairs // 2 else (column, i - pairs // 2)
        z[i] *= np.exp(1j * coordinate * 100.0 ** (-number / (pairs // 2)))
    return np.concatenate([z.real, z.imag])


def _flatten(tree, prefix=""):
    for name, node in tree.items():
        if isinstance(node, dict):
            yield from _flatten(node, f"{prefix}{name}/")
        else:
            yield prefix + name, node
