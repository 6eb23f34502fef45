"""Count dropped documents by rule, with examples.

May import: data_prep.engine, data_prep.pii.
"""
