"""Text from a model.

May import: lm.model, lm.parallel, lm.tokenizer.
"""
