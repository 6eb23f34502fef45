"""Input pipeline: sequence records (the contract with data_prep; no JAX), mixtures, batches, shard verification.

May import: lm.config.
"""
