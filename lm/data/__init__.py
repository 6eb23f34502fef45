"""Tokens on their way to the step: records (the contract with data_prep, no jax), mixtures, batches, verification.

May import: lm.config.
"""
