"""A model as a self-contained folder: model.py, which needs only NumPy, with its weights and vocabulary.

May import: lm.formats' other rooms, lm.config, lm.tokenizer.
"""
