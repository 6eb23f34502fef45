"""Optimizer parts missing from optax: Muon distributed over a device mesh, and stochastic rounding.

May import: lm.parallel.
"""
