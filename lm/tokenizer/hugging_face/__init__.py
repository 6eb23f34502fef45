"""Hugging Face's tokenizer.json: read as a `BytePairTokenizer`, written, or encoded by Hugging Face's library.

May import: lm.tokenizer's other modules.
"""
