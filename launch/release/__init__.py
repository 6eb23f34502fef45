"""A trained model and the documents into files that other programs read, and theirs into a run folder.

May import: configs, lm.
"""
