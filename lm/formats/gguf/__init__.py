"""GGUF, the files of llama.cpp and what is built on it, written and read by the package gguf.

May import: lm.formats' other rooms, lm.config, lm.tokenizer.
"""
