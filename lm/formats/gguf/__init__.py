"""GGUF, the file format of llama.cpp and programs built on it, read and written with the gguf package.

May import: the other modules of lm.formats, lm.config, lm.tokenizer.
"""
