"""Metrics of a run: throughput, terminal, metrics.jsonl, TensorBoard, Weights & Biases, profiles.

May import: lm.config.
"""
