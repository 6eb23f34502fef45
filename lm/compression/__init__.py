"""Lossless compression of any file with a language model and a range coder.

May import: lm.config, lm.model, lm.parallel, lm.tokenizer, lm.compilation_cache.
"""
