"""A model in files that other programs read: safetensors, Hugging Face.

May import: lm.model, lm.tokenizer.
"""
