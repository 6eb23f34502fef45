"""Reference attention in NumPy and float64, independent of lm.model: one head at a time, manual gradients."""

import numpy as np


def attention(q, k, v, segments, out_gradient, window=None, prefix=0):
    """Return (out, (gradients of q, k, v)) given the gradient with regard to out."""
    q, k, v, out_gradient = (np.asarray(x, np.float64) for x in (q, k, v, out_gradient))
    segments = np.asarray(segments)
    batch, length, heads, channels = q.shape
    out, dq, dk, dv = np.zeros_like(q), np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    t, s = np.arange(length)[:, None], np.arange(length)[None, :]
    later = (s > t) | (t - s >= (length if window is None else window))
    later &= ~((t < prefix) & (s < prefix))
    for b in range(batch):
        hidden = later | (segments[b][:, None] != segments[b][None, :])
        for h in range(heads):
            shared = h // (heads // k.shape[2])
            queries, keys, values = q[b, :, h], k[b, :, shared], v[b, :, shared]
            scores = np.where(hidden, -np.inf, queries @ keys.T / np.sqrt(channels))
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            out[b, :, h] = weights @ values
            felt = out_gradient[b, :, h] @ values.T
            dscores = weights * (felt - (weights * felt).sum(-1, keepdims=True)) / np.sqrt(channels)
            dq[b, :, h] = dscores @ keys
            dk[b, :, shared] += dscores.T @ queries
            dv[b, :, shared] += weights.T @ out_gradient[b, :, h]
    return out, (dq, dk, dv)
