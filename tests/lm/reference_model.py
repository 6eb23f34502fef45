"""Reference transformer in NumPy and float64, independent of lm.model, with loops over rows and heads."""

import math

import numpy as np

from tests.lm.model.plain_attention import hidden_keys, softmax


def array(parameter):
    return np.asarray(parameter[...], np.float64)


def linear(layer, x):
    y = x @ array(layer.weight)
    return y if layer.bias is None else y + array(layer.bias)


def norm(config, layer, x):
    if config.norm == "rmsnorm":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_epsilon) * array(layer.scale)
    x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_epsilon) * array(layer.scale)
    return y if layer.bias is None else y + array(layer.bias)


def frequency(theta, share, scaling):
    """Radians per position of the channel pair at `share` of the channels; Llama 3.1 has three cases by wavelength."""
    plain = theta**-share
    if scaling is None:
        return plain
    wavelength = 2 * math.pi / plain
    if wavelength < scaling.original_context_length / scaling.high_frequency_factor:
        return plain
    if wavelength > scaling.original_context_length / scaling.low_frequency_factor:
        return plain / scaling.factor
    smooth = scaling.original_context_length / wavelength - scaling.low_frequency_factor
    smooth /= scaling.high_frequency_factor - scaling.low_frequency_factor
    return (1 - smooth) * plain / scaling.factor + smooth * plain


def rotated(config, x, position):
    """Rotate the pairs (c, c + C/2) by complex multiplication."""
    half = len(x) // 2
    pairs = x[:half] + 1j * x[half:]
    speeds = np.array([frequency(config.rope_theta, c / half, config.rope_scaling) for c in range(half)])
    turned = pairs * np.exp(1j * position * speeds)
    return np.concatenate([turned.real, turned.imag])


def mixture(config, part, name, x, segments):
    """The token shift, token by token."""
    if not config.token_shift:
        return x
    share = array(getattr(part, name))
    before = [x[t - 1] if t and segments[t - 1] == segments[t] else np.zeros_like(x[t]) for t in range(len(x))]
    return share * np.stack(before) + (1 - share) * x


def attention(config, layer, x, segments, window):
    """(result, weights of each head, query and key)."""
    length, channels, group = len(x), config.head_channels, config.heads // config.kv_heads
    q = linear(layer.query, mixture(config, layer, "query_share", x, segments)).reshape(length, config.heads, channels)
    k = linear(layer.key, mixture(config, layer, "key_share", x, segments)).reshape(length, config.kv_heads, channels)
    v = linear(layer.value, mixture(config, layer, "value_share", x, segments)).reshape(
        length, config.kv_heads, channels
    )
    if config.qk_norm:
        q, k = (x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_epsilon) for x in (q, k))
    if config.position == "rope":
        q, k = (np.array([[rotated(config, head, t) for head in heads] for t, heads in enumerate(x)]) for x in (q, k))
    hidden = hidden_keys(np.asarray(segments), window)
    weights = np.array([softmax(q[:, head], k[:, head // group], hidden) for head in range(config.heads)])
    out = np.stack([weights[head] @ v[:, head // group] for head in range(config.heads)], axis=1)
    return linear(layer.out, out.reshape(length, -1)), weights


def mlp(config, layer, x):
    if config.mlp == "swiglu":
        gate = linear(layer.gate, x)
        return linear(layer.down, gate / (1 + np.exp(-gate)) * linear(layer.up, x))
    h = linear(layer.up, x)
    if config.mlp == "relu_squared":
        return linear(layer.down, np.maximum(h, 0) ** 2)
    return linear(layer.down, h * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))))


def ngrams(config, model, tokens, segments):
    """Embeddings of the n-grams, token by token; the hash uses Python integers."""
    x = np.zeros((len(tokens), config.width))
    for length, table in enumerate(model.ngrams, 2):
        for t in range(len(tokens)):
            row = 0
            for s in range(t, t - length, -1):
                inside = s >= 0 and segments[s] == segments[t]
                row = (row ^ (int(tokens[s]) + 1 if inside else 0)) * 0x9E3779B1 % 2**32
                row ^= row >> 15
            x[t] += array(table)[row % config.ngram_rows]
    return x


def row(config, model, tokens, segments):
    """{name: value} of one row, with the names of Transformer.forward_with_taps."""
    x = array(model.embedding)[tokens] + ngrams(config, model, tokens, segments)
    if config.position == "learned":
        x = x + array(model.positions)[: len(tokens)]
    found = {"embedding": x}
    for number, block in enumerate(model.blocks):
        h = norm(config, block.attention_norm, x)
        out, weights = attention(config, block.attention, h, segments, config.window(number))
        x = x + out
        found |= {f"blocks.{number}.attention.{name}": y for name, y in
                  (("weights", weights), ("out", out), ("residual", x))}  # fmt: skip
        h = norm(config, block.mlp_norm, x)
        out = mlp(config, block.mlp, mixture(config, block, "mlp_share", h, segments))
        x = x + out
        found |= {f"blocks.{number}.mlp.out": out, f"blocks.{number}.mlp.residual": x}
    found["norm"] = norm(config, model.norm, x)
    scores = found["norm"] @ array(model.embedding).T if model.head is None else linear(model.head, found["norm"])
    cap = config.logit_softcap
    return found | {"logits": scores if cap is None else cap * np.tanh(scores / cap)}


def logits(config, model, tokens_BT, segments_BT):
    rows = zip(tokens_BT, segments_BT, strict=True)
    return np.stack([row(config, model, tokens, segments)["logits"] for tokens, segments in rows])
