"""Scaling laws: a ladder of small models, the law that fits their losses, and what it says of larger ones.

May import: lm.config, lm.data, lm.planning.
"""
