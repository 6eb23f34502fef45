"""Self-attention: layer, mask, implementations, and the choice among them.

May import: lm.model, lm.parallel, lm.devices, lm.config.
"""
