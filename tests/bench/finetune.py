"""Finetuning compared with transformers and peft: the same batches with the same masks, AdamW, float32, 20 steps.

    python -m tests.bench.finetune [--only stories260K]

stories260K is imported as by launch.import_model, with a vocabulary of our own that has the chat tokens; SmolLM2 has
the shape of the 135 M model and random weights. launch.finetune trains all parameters, then adapters, whose export is
loaded by peft. Prints a row for each: largest differences of losses and logits. The peer (finetune_peer.py) is
$PEERS_DIR/torch/bin/python, with torch, transformers 5 and peft.
"""

import dataclasses
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.experiment import Experiment
from configs.experiment.run_folder import RunFolder
from launch import finetune
from launch.release.formats import export
from launch.release.imported import write_run
from launch.release.sources import open_source
from lm.chat.templates import TEMPLATES
from lm.config import ChatConfig, LoraConfig, ModelConfig, TokenizerConfig
from lm.config.tokenizer import END_OF_TEXT
from lm.data.batches import training_batches
from lm.formats.hugging_face.adapter import write_adapter
from lm.formats.source import SourceModel
from lm.formats.tensors import parameter_shapes
from lm.model.lora import make_adapters
from lm.model.param_names import named_leaves
from lm.tokenizer import Tokenizer, train_tokenizer
from tests.bench.interop_greedy import STORIES
from tests.bench.runner import PEERS, REPOSITORY, SkippedError, ask_peer, require_file, run_benchmark

STEPS, CONTEXT = 20, 128
SMOLLM2 = ModelConfig(
    vocab_size=49152, context_length=CONTEXT, layers=30, width=576, heads=9, kv_heads=3, mlp_width=1536, norm="rmsnorm",
    position="rope", mlp="swiglu", biases=False, tie_embeddings=True, rope_theta=100_000.0, norm_epsilon=1e-5,
    initial_std=0.041666666666666664, parameter_dtype="float32", compute_dtype="float32",
)  # fmt: skip
"""SmolLM2-135M (config.json of HuggingFaceTB/SmolLM2-135M), with a shorter context."""
ADAMW = {"learning_rate": 3e-4, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
METHODS = {"full": LoraConfig(), "lora": LoraConfig(rank=8, alpha=16.0)}
WORDS = (REPOSITORY / "LICENSE").read_text(encoding="utf-8").split()


def tokenizer() -> Tokenizer:
    config = TokenizerConfig(
        vocab_size=512,
        split_pattern="gpt2",
        train_characters=1_000_000,
        special_tokens=(END_OF_TEXT, *TEMPLATES["chatml"].tokens),
    )
    return train_tokenizer([" ".join(WORDS)], config)


def random_source(config: ModelConfig) -> SourceModel:
    source = np.random.default_rng(0)
    scale = lambda name: (1.0, 0.1) if name.endswith("scale") else (0.0, config.initial_std)
    drawn = {
        name: source.normal(*scale(name), shape).astype(np.float32) for name, shape in parameter_shapes(config).items()
    }
    return SourceModel(config, tokenizer(), drawn)


def write_conversations(path: Path) -> None:
    """Conversations of one to three rounds of random words, some of them short enough to be packed."""
    chance = random.Random(0)
    words = lambda: " ".join(chance.choices(WORDS, k=chance.randint(1, 12)))
    with path.open("w", encoding="utf-8") as file:
        for _ in range(400):
            rounds = [(words(), words()) for _ in range(chance.randint(1, 3))]
            messages = [
                {"role": role, "content": text}
                for pair in rounds
                for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def config_of(base: Path, conversations: Path, rows: int, lora: LoraConfig) -> Experiment:
    experiment = RunFolder(base).experiment()
    optimizer = dataclasses.replace(
        experiment.train.optimizer, **ADAMW, name="adamw", muon=None, warmup_steps=0, schedule="cosine",
        decay_steps=0, final_learning_rate=ADAMW["learning_rate"],
    )  # fmt: skip
    train = dataclasses.replace(
        experiment.train, steps=STEPS, batch_size=rows, optimizer=optimizer, log_every=1, validate_every=0,
        sample_every=0, checkpoint_every=STEPS, checkpoints_kept=1, lora=lora,
    )  # fmt: skip
    chat = ChatConfig(base=str(base), conversations=(str(conversations),), validation_fraction=0.1, template="chatml")
    return dataclasses.replace(experiment, train=train, chat=chat)


def compare(python: Path, base: Path, name: str, method: str, rows: int) -> dict[str, Any]:
    work, lora = base.with_name(f"{base.name}-{method}"), METHODS[method]
    conversations = base.with_name("talks.jsonl")
    write_conversations(conversations)
    finetune.run(config_of(base, conversations, rows, lora), work)
    finished = RunFolder(work)
    experiment, given = finished.experiment(), work.with_suffix(".npz")
    source = training_batches(
        experiment.model, experiment.train, finished.tokens, finished.load().tokenizer.fingerprint, 1
    )
    batches = [source.batch(step) for step in range(STEPS)]
    arrays = dict(
        zip(("inputs", "targets", "segments", "weights"), map(np.stack, zip(*batches, strict=True)), strict=True)
    )
    np.savez(given, **arrays)

    exported, adapters = work.with_name(f"{work.name}-base"), []
    export(RunFolder(base).open_to_publish(), exported, "hugging_face")
    if lora.rank:
        adapters = [work.with_name(f"{work.name}-{part}") for part in ("start", "trained")]
        first = make_adapters(RunFolder(base).load().model, lora, experiment.train.seed)
        start = {f"adapters.{name}": np.asarray(value) for name, value in named_leaves(first).items()}
        write_adapter(adapters[0], experiment.model, lora, start)
        export(finished.open_to_publish(), adapters[1], "hugging_face", adapter=True)
    answers = work.with_suffix(".answers.npz")
    program = (Path(__file__).parent / "finetune_peer.py").read_text(encoding="utf-8")
    about = ask_peer(python, program, exported, given, json.dumps(ADAMW), answers, *adapters)
    theirs = np.load(answers)
    logged = [json.loads(line) for line in finished.metrics.read_text(encoding="utf-8").splitlines()]
    losses = np.array([row["loss"] for row in logged if "loss" in row])
    forward = jax.jit(
        lambda model, one: model.logits(model.read(jnp.asarray(one.inputs_BT), jnp.asarray(one.segment_ids_BT)))
    )
    ours = np.asarray(forward(finished.load().model, jax.tree.map(jnp.asarray, batches[0])))
    real = batches[0].segment_ids_BT > 0
    far = lambda logits: float(np.abs(ours - logits)[real].max())
    row = {
        "model": name, "method": method, "steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1],
        "trained_tokens": int(arrays["weights"].sum()), "documents": int(arrays["segments"].max(axis=2).sum()),
        "losses_differ": float(np.abs(losses - theirs["losses"]).max()), "logits_differ": far(theirs["logits"]),
    }  # fmt: skip
    return row | ({"logits_of_export_in_peft_differ": far(theirs["loaded"])} if lora.rank else {}) | about


def main(only: str = "") -> Iterator[dict[str, Any]]:
    """Args:
    only: Run the model or the method with this in its name.
    """
    python = PEERS / "torch/bin/python"
    if not python.exists():
        raise SkippedError(f"{python} is missing: a Python with torch, transformers 5 and peft")
    stories = open_source(require_file(STORIES / "hf/config.json").parent, tokenizer())
    stories = dataclasses.replace(stories, config=dataclasses.replace(stories.config, context_length=CONTEXT))
    sources = {"stories260K": (stories, 4), "SmolLM2, random": (random_source(SMOLLM2), 1)}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (source, rows)) in enumerate(sources.items()):
            base = Path(folder) / f"base{number}"
            write_run(source, base, name)
            for method in METHODS:
                if only in f"{name} {method}":
                    yield compare(python, base, name, method, rows)


if __name__ == "__main__":
    run_benchmark(main)
