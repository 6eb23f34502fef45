"""Words, sentences and punctuation marks of a text.

May import: data_prep.package_index.
"""
