"""What was dropped, by which rule, with examples.

May import: data_prep.engine, data_prep.pii.
"""
