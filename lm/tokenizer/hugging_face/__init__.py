"""Hugging Face's tokenizer.json: read as a byte-level BPE of ours, written, or encoded with by their own library.

May import: lm.tokenizer's other modules.
"""
