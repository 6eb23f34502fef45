"""Run all benchmarks without options, one after the other: python -m tests.bench (make bench).

A benchmark whose sample data, peer or model is missing prints a row with the reason.
"""

import subprocess
import sys

PROGRAMS = {
    "attention": "attention kernels: speed, and difference to plain float32 attention",
    "base_model": "recitation of repeated passages, and few-shot learning",
    "cluster": "a step on a Ray cluster with failing nodes and requests",
    "decisions": "verdicts compared with datatrove's on the same texts",
    "documents": "WARC file to documents in one process",
    "dump_cost": "computed cost of a crawl's dump",
    "extraction": "speed of main-text extraction",
    "extraction_kinds": "F1 of main-text extraction on seven kinds of pages",
    "finetune": "finetuning and adapters compared with transformers and peft",
    "finetune_own": "own conversations on three models: trained answers, held-out loss, CPU minutes",
    "generate": "tokens per second of the engine",
    "interop": "exports and imports compared with transformers and llama.cpp",
    "language": "accuracy of English or not, 75 languages",
    "languages": "verdicts in ten languages compared with datatrove's",
    "layouts": "every row of configs/layouts.py compiled by libtpu",
    "meshes": "arithmetic, memory and communication of compiled steps on eight devices",
    "minhash": "MinHash keys per second, and pairs found",
    "pii": "recall and precision of personal data",
    "reinforce": "reinforcement learning: exact log-probabilities, and scores of three tasks",
    "serve": "throughput and latency of the HTTP server",
    "startup": "process start to first training step",
    "templates": "chat templates compared with transformers",
    "tokenizer": "training and encoding compared with rustbpe and tiktoken",
    "train": "a training step compared with a bare matrix product",
}
"""{module: description}. Not here: tests.bench.card (docs/accelerators.md) and tests.bench.extract_fit."""

if __name__ == "__main__":
    for name in PROGRAMS:
        subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False)
