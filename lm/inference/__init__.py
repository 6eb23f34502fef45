"""Text generation.

May import: lm.model, lm.parallel, lm.tokenizer.
"""
