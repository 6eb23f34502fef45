"""Speed of every attention implementation of this device, and its error against plain float32 attention.

    python -m tests.bench.attention [--seconds 2]

Prints a JSON line for each implementation and shape (packed documents, a sliding window, a length that no block size
divides), forward and backward: median milliseconds, and greatest_error of the result and of the gradients of q, k and v
in units of the largest plain value. Exits with an error above 2 %: bfloat16 has 8 bits, so correct implementations stay
below 1 %. On a CPU the shapes are small and only xla runs.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from lm.devices import target_of
from lm.metrics.hardware import median_seconds
from lm.model.attention.choice import UNSUPPORTED, AttentionSpec
from lm.model.attention.kernels import ATTENTION
from lm.model.attention.mask import AttentionMask
from lm.model.attention.plain import attend
from tests.bench.runner import run_benchmark

SHAPES = {  # batch, length, heads, key-value heads, channels, window
    "gpt2_124m": (8, 1024, 12, 12, 64, None),
    "gpt2_124m_1023": (8, 1023, 12, 12, 64, None),
    "llama3_8b": (1, 4096, 32, 8, 128, None),
    "llama3_8b_window": (1, 4096, 32, 8, 128, 1024),
    "small": (2, 512, 4, 2, 64, None),
    "small_255": (2, 255, 4, 2, 64, None),
    "small_window": (2, 512, 4, 2, 64, 100),
    "small_long": (1, 2048, 4, 2, 64, None),
}
TOLERANCE = 0.02


def plain(q_BTHC: jax.Array, k_BTKC: jax.Array, v_BTKC: jax.Array, mask: AttentionMask) -> jax.Array:
    """Plain attention in float32."""
    q_BTHC, k_BTKC, v_BTKC = (x.astype(jnp.float32) for x in (q_BTHC, k_BTKC, v_BTKC))
    return attend(q_BTHC, k_BTKC, v_BTKC, mask.all_visible())


def with_gradients(
    implementation: Callable[..., jax.Array], window: int | None
) -> Callable[..., tuple[jax.Array, ...]]:
    """Return a jitted function (q, k, v, segments, gradient of the result) -> (result, gradients of q, k, v)."""

    def run(*arguments: jax.Array) -> tuple[jax.Array, ...]:
        *qkv, segments_BT, gradient_BTHC = arguments
        out_BTHC, pull = jax.vjp(lambda *qkv: implementation(*qkv, AttentionMask(segments_BT, window)), *qkv)
        return out_BTHC, *pull(gradient_BTHC.astype(out_BTHC.dtype))

    return jax.jit(run)


def measure(shape: str, seconds: float) -> Iterator[dict[str, object]]:
    """Yield a row for each implementation that supports this shape on this device."""
    batch, length, heads, kv_heads, channels, window = SHAPES[shape]
    generator = np.random.default_rng(0)
    q, k, v, gradient = (
        jnp.asarray(generator.normal(size=(batch, length, n, channels)), jnp.bfloat16)
        for n in (heads, kv_heads, kv_heads, heads)
    )
    segments = jnp.asarray(np.sort(generator.integers(1, 5, (batch, length)), axis=1), jnp.int32)
    with jax.default_matmul_precision("highest"):
        expected = [np.asarray(x, np.float32) for x in with_gradients(plain, window)(q, k, v, segments, gradient)]
    for name, implementation in ATTENTION.items():
        if UNSUPPORTED[name](target_of(jax.devices()[0]), AttentionSpec("bfloat16", channels, length)) is not None:
            continue
        run = functools.partial(with_gradients(implementation, window), q, k, v, segments, gradient)
        errors = [
            float(np.abs(np.asarray(x, np.float32) - y).max() / np.abs(y).max())
            for x, y in zip(run(), expected, strict=True)
        ]
        milliseconds = 1000 * median_seconds(lambda run=run: jax.block_until_ready(run()), seconds)
        yield {
            "device": jax.devices()[0].device_kind,
            "implementation": name,
            "shape": shape,
            "milliseconds": round(milliseconds, 3),
            "greatest_error": dict(zip(("out", "q", "k", "v"), (round(e, 5) for e in errors), strict=True)),
            "agrees": max(errors) < TOLERANCE,
        }


def main(seconds: float = 2) -> Iterator[dict[str, object]]:
    small = jax.default_backend() == "cpu"
    agree = True
    for shape in SHAPES:
        if shape.startswith("small") == small:
            for row in measure(shape, seconds):
                yield row
                agree &= bool(row["agrees"])
    if not agree:
        raise SystemExit(f"An implementation differs from plain attention by more than {TOLERANCE:.0%}.")


if __name__ == "__main__":
    run_benchmark(main)
