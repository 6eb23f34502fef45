"""Parts of optimizers that optax has not: Muon over the devices of a mesh, stochastic rounding.

May import: lm.parallel.
"""
