"""Checkpoints on disk: write, read, manifest, retention.

May import: lm.model, lm.parallel, lm.resilience.
"""
