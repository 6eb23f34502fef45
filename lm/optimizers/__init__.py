"""Parts of optimizers that optax has not, over the devices of a mesh.

May import: lm.parallel.
"""
