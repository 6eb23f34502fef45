"""Metrics of a run: throughput, terminal, metrics.jsonl, TensorBoard, Weights & Biases, profiles.

May import: only the top-level modules of lm.
"""
