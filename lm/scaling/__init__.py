"""Scaling laws: train a ladder of small models, fit a law to their losses, and predict larger models.

May import: lm.config, lm.data, lm.model.
"""
