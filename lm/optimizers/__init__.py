"""Parts of optimizers that optax does not have: Muon over the devices of a mesh, stochastic rounding.

May import: lm.parallel.
"""
