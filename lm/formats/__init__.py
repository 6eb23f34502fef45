"""Read and write models in other programs' formats: safetensors, Hugging Face, GGUF, standalone NumPy.

May import: lm.checkpoints, lm.model, lm.tokenizer.
"""
