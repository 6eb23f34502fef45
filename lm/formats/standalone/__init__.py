"""A model as a self-contained folder: model.py, which needs only NumPy, with its weights and vocabulary.

May import: the other modules of lm.formats, lm.config, lm.tokenizer.
"""
