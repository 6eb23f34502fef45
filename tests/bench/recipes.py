"""The modern recipe beside plain GPT-2: the same parameters, tokens and batches, on the demo's corpus.

    python -m tests.bench.recipes --recipe {gpt2,modern} [--seed 0] [--learning-rate R] [--steps 250]

Prints one JSON line: parameters, tokens, bits per byte over the whole held-out split, and the same on some held-out
batches along the way. It needs runs/demo with its tokens (make demo, or its stages up to launch.write_shards).
"""

import argparse
import contextlib
import dataclasses
import io
import json
import shutil
import tempfile
from pathlib import Path

from configs.demo import get_config
from configs.recipes.families import gpt2, modern
from lm.checkpoints.reading import restore_model
from lm.config import ModelConfig, MuonConfig, OptimizerConfig
from lm.evaluation.evaluators import evaluate
from lm.model.cost import count_parameters
from lm.tokenizer import load
from lm.training.loop import train

DEMO = Path("runs/demo")
EVERY = 25


def model_of(recipe: str, vocabulary: int) -> ModelConfig:
    """4 layers of 128 channels; the modern MLP is wider by what positions and biases take in GPT-2."""
    model = dataclasses.replace(
        gpt2(layers=4, width=128, heads=2), vocab_size=vocabulary, context_length=256, compute_dtype="float32"
    )
    if recipe == "gpt2":
        return model
    return dataclasses.replace(modern(model), mlp_width=552)


def optimizer_of(recipe: str, learning_rate: float | None, steps: int, base: OptimizerConfig) -> OptimizerConfig:
    """GPT-2 by AdamW and a cosine to a tenth, the modern recipe by Muon beside AdamW and a line to zero."""
    if recipe == "gpt2":
        rate = learning_rate or 2e-3  # the best of 1e-3, 2e-3, 4e-3
        return dataclasses.replace(
            base, learning_rate=rate, final_learning_rate=rate / 10, warmup_steps=steps // 10, schedule="cosine",
            muon=None,
        )  # fmt: skip
    return dataclasses.replace(
        base,
        learning_rate=learning_rate or 4e-3,
        final_learning_rate=0.0,
        warmup_steps=20,
        schedule="linear",
        muon=MuonConfig(learning_rate=0.02, momentum=0.95, newton_schulz_steps=5),
    )


def measure(recipe: str, seed: int, learning_rate: float | None, steps: int) -> dict:
    experiment = get_config()
    model = model_of(recipe, experiment.model.vocab_size)
    optimizer = optimizer_of(recipe, learning_rate, steps, experiment.train.optimizer)
    config = dataclasses.replace(
        experiment.train, steps=steps, seed=seed, optimizer=optimizer, validate_every=EVERY, validation_batches=4,
        sample_every=steps, checkpoint_every=steps,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        for part in ("tokens", "tokenizer"):
            shutil.copytree(DEMO / part, run / part)
        with contextlib.redirect_stdout(io.StringIO()):
            train(model, config, run)
            trained = restore_model(model, run / "checkpoints")
            found = evaluate(trained, model, experiment.evaluate, load(run / "tokenizer"), run / "tokens")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [[row["step"], row["validation_bits_per_byte"]] for row in rows if "validation_bits_per_byte" in row]
    return {
        "bench": "recipes",
        "recipe": recipe,
        "seed": seed,
        "learning_rate": optimizer.learning_rate,
        "parameters": count_parameters(model),
        "tokens": steps * config.batch_size * model.context_length,
        "bits_per_byte": round(found["validation_bits_per_byte"], 4),
        "curve": [[step, round(bits, 4)] for step, bits in curve],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=("gpt2", "modern"), default="modern")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, help="of AdamW")
    parser.add_argument("--steps", type=int, default=250)
    arguments = parser.parse_args()
    if not (DEMO / "tokens/manifest.json").is_file():
        raise SystemExit(f"There are no tokens in {DEMO}. First: make demo")
    print(json.dumps(measure(arguments.recipe, arguments.seed, arguments.learning_rate, arguments.steps)))


if __name__ == "__main__":
    main()
