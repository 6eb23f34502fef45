"""Reference attention in NumPy and float64, independent of lm.model: one head at a time, manual gradients."""

import numpy as np


def softmax(q, k, hidden):
    """Return the attention weights of one head; True in `hidden` hides a key from a query."""
    scores = np.where(hidden, -np.inf, q @ k.T / np.sqrt(q.shape[-1]))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def hidden_keys(segments, window=None, prefix=0):
    """Return whether each key is hidden from each query: it is later, outside the window or in another document."""
    t, s = np.indices((len(segments), len(segments)))
    later = (s > t) | (t - s >= (len(segments) if window is None else window))
    return later & ~((t < prefix) & (s < prefix)) | (segments[:, None] != segments[None, :])


def attention(q, k, v, segments, out_gradient, window=None, prefix=0):
    """Return (out, (gradients of q, k, v)) given the gradient with regard to out."""
    q, k, v, out_gradient = (np.asarray(x, np.float64) for x in (q, k, v, out_gradient))
    segments = np.asarray(segments)
    batch, _, heads, channels = q.shape
    out, dq, dk, dv = np.zeros_like(q), np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for b in range(batch):
        hidden = hidden_keys(segments[b], window, prefix)
        for h in range(heads):
            shared = h // (heads // k.shape[2])
            queries, keys, values = q[b, :, h], k[b, :, shared], v[b, :, shared]
            weights = softmax(queries, keys, hidden)
            out[b, :, h] = weights @ values
            felt = out_gradient[b, :, h] @ values.T
            dscores = weights * (felt - (weights * felt).sum(-1, keepdims=True)) / np.sqrt(channels)
            dq[b, :, h] = dscores @ keys
            dk[b, :, shared] += dscores.T @ queries
            dv[b, :, shared] += weights.T @ out_gradient[b, :, h]
    return out, (dq, dk, dv)
