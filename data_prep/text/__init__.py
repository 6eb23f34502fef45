"""Words, sentences and punctuation of texts.

May import: data_prep.package_index.
"""
