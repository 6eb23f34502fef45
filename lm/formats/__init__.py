"""A model in files that other programs read: safetensors, Hugging Face; and out of them.

May import: lm.checkpoints, lm.model, lm.tokenizer.
"""
