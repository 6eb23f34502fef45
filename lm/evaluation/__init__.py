"""What a model is worth: the table of evaluators, bits per byte beside compressors, and losses token by token.

May import: lm.model, lm.parallel, lm.data, lm.tokenizer.
"""
