"""What a model is worth: bits per byte beside compressors, and its losses token by token.

May import: lm.model, lm.parallel, lm.data, lm.tokenizer.
"""
