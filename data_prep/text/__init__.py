"""Words, sentences and punctuation marks of a text.

May import: nothing of data_prep.
"""
