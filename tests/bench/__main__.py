"""Run all benchmarks without options, one after the other: python -m tests.bench (make bench).

A benchmark whose sample data, peer or model is missing prints a row with the reason.
"""

import subprocess
import sys

PROGRAMS = {
    "attention": "attention kernels: speed, and difference to plain float32 attention",
    "cluster": "a step on a Ray cluster with failing nodes and requests",
    "documents": "WARC file to documents in one process",
    "extraction": "speed of main-text extraction",
    "generate": "tokens per second of the engine",
    "interop": "exports and imports compared with transformers and llama.cpp",
    "layouts": "every row of configs/layouts.py compiled by libtpu",
    "linear_time": "time of every function and pattern of external text, for growing inputs",
    "meshes": "arithmetic, memory and communication of compiled steps on eight devices",
    "pii": "recall and precision of personal data",
    "serve": "throughput and latency of the HTTP server",
    "templates": "chat templates compared with transformers",
    "train": "a training step compared with a bare matrix product",
}
"""{module: description}. Not here: tests.bench.card (docs/accelerators.md)."""

if __name__ == "__main__":
    for name in PROGRAMS:
        subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False)
