"""A model as one folder that explains itself: model.py, which needs NumPy alone, with its weights and vocabulary.

May import: lm.formats' other rooms, lm.config, lm.tokenizer.
"""
