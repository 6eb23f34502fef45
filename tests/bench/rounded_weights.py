"""What a model loses where its weights are rounded for inference (lm/inference/weights.py).

    python -m tests.bench.rounded_weights [RUN_FOLDER [TEXT]] [--tokens 8192]

Prints one JSON line: bits per byte of the beginning of a UTF-8 text (default: the README) in each form of
the weights.
"""

import argparse
import json
import math
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from configs.experiment import RunFolder
from lm.inference.weights import Weights, for_inference
from lm.model.loss import cross_entropy
from lm.model.transformer import Transformer
from tests.run_files import REPOSITORY, has_model


@jax.jit
def nats(model: Transformer, tokens_1T: jax.Array) -> jax.Array:
    """Of all tokens but the first."""
    x_1TD = model.read(tokens_1T[:, :-1], jnp.ones_like(tokens_1T[:, :-1]))
    return jnp.sum(cross_entropy(model.logits(x_1TD), tokens_1T[:, 1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo"))
    parser.add_argument("text", nargs="?", type=Path, default=REPOSITORY / "README.md")
    parser.add_argument("--tokens", type=int, default=8192)
    arguments = parser.parse_args()
    if not has_model(arguments.run, "rounded_weights"):
        return
    run = RunFolder(arguments.run).load()
    tokenizer, config = run.tokenizer, run.experiment.model
    ids = tokenizer.encode(arguments.text.read_text(encoding="utf-8"))[: arguments.tokens]
    step = config.context_length - 1
    rows = [[tokenizer.bos_id, *ids[at : at + step]] for at in range(0, len(ids) - step + 1, step)]
    size = sum(len(tokenizer.token_bytes(id)) for row in rows for id in row[1:])
    row: dict[str, object] = {"bench": "rounded_weights", "bytes": size}
    for weights in (None, *get_args(Weights.__value__)):
        model = run.model if weights is None else for_inference(run.model, config, weights)
        total = sum(float(nats(model, np.array([one], np.int32))) for one in rows)
        row["as_trained" if weights is None else weights] = round(total / math.log(2) / size, 5)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
