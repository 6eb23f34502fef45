"""GGUF, the file format of llama.cpp and programs built on it, read and written with the gguf package.

May import: lm.formats' other rooms, lm.config, lm.tokenizer.
"""
