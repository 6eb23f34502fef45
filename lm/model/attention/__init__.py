"""Self-attention: the layer, who sees whom, the implementations, and the choice among them.

May import: lm.model, lm.parallel, lm.devices, lm.config.
"""
